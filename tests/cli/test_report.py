import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from wsss.cli.report import print_report
from wsss.evaluation.report import Report, ScoreReport

REPORT = Report(
    split="val",
    kind="segmentation",
    method=None,
    scales=(0.5, 1.0),
    flip=True,
    crf=False,
    threshold_rule="none",
    images=3,
    unscored=0,
    missing=0,
    supervision=("tags", "saliency maps"),
    mean_iou=0.5,
    per_class_iou={"background": 0.75, "[red]cat": 0.25, "dog": None},
    pixel_accuracy=0.875,
    coverage=1.0,
)


def printed(report: Report | ScoreReport) -> list[str]:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=120))
    return [" ".join(line.replace("│", " ").split()) for line in stream.getvalue().splitlines()]


def test_the_title_says_which_number_it_is() -> None:
    lines = printed(REPORT)
    assert lines[0] == "val: segmentation, from tags + saliency maps, scales 0.5 1, flip on, CRF off, threshold none"
    assert lines[-1] == "3 images scored"
    for row in (
        "background 75.00",
        "[red]cat 25.00",
        "dog -",
        "mean IoU 50.00",
        "pixel accuracy 87.50",
        "coverage 100.00",
    ):
        assert row in lines


def test_unknown_settings_and_unscored_images_are_printed() -> None:
    lines = printed(replace(REPORT, scales=None, flip=None, crf=None, unscored=2, missing=1, supervision=None))
    assert lines[0].startswith("val: segmentation, from unknown supervision, scales unknown, ")
    assert lines[0].endswith("flip unknown, CRF unknown, threshold none")
    assert lines[-1].startswith("3 images scored, 2 without a mask not scored, 1 WITHOUT A PREDICTION")


def test_seeds_stand_side_by_side() -> None:
    fixed = replace(REPORT, kind="seed", method="getam", threshold_rule="fixed 0.40")
    oracle = replace(fixed, threshold_rule="oracle 0.37", mean_iou=0.625)
    lines = printed(ScoreReport(fixed=fixed, oracle=oracle))
    assert lines[0].startswith("val: seed (getam), ")
    assert lines[0].endswith("threshold fixed 0.40 and oracle 0.37")
    assert "mean IoU 50.00 62.50" in lines


@pytest.mark.parametrize("field", ["mean_iou", "pixel_accuracy", "coverage"])
def test_nan_becomes_null_and_a_dash(field: str) -> None:
    report = Report(**{**{name: getattr(REPORT, name) for name in REPORT.to_json()}, field: math.nan})
    assert report.to_json()[field] is None
    assert f"{field.replace('_', ' ').replace('iou', 'IoU')} -" in printed(report)
