"""The page of runs and label maps: its figures are those of ``evaluate``, and a browser shows it without a network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsss.data.dataset import open_data
from wsss.errors import DataError
from wsss.inference.evaluate import evaluate_labels
from wsss.report.charts import line_chart, nice_ticks
from wsss.report.curves import Series, read_curves
from wsss.report.page import write_page
from wsss.reporting import Silent


@pytest.fixture
def masks(tmp_path: Path, scenes: Path, label_folder: Callable[..., Path]) -> Path:
    """Label maps of the validation split: the true ones, with a stripe of background."""
    return label_folder(tmp_path / "masks <b>")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two validations and a damaged line, with a teacher."""
    rows = [{"step": 10, "lr": 0.1, "loss": 2.0}, {"step": 20, "lr": 0.1, "loss": 1.0}]
    rows += [{"step": 20, "epoch": 1, "split": "val", "mean_iou": 0.5}]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "run" / "teacher").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text(json.dumps({"classes": ["bee"], "split": "train", "images": 24}))
    (tmp_path / "run" / "metrics.jsonl").write_text(lines + '{"step": 30, "lo')
    (tmp_path / "run" / "teacher" / "metrics.jsonl").write_text(lines)
    return tmp_path / "run"


def test_curves_by_hand(run: Path) -> None:
    student, teacher = read_curves(run)
    assert student.losses == [Series("loss", [(10, 2.0), (20, 1.0)])]
    assert student.validations == [Series("mean_iou", [(20, 0.5)])]
    assert (student.split, student.broken, teacher.name, teacher.broken) == ("val", 1, "teacher", 0)


def test_ticks_and_points_of_a_chart() -> None:
    assert nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert nice_ticks(0, 374) == [0, 100, 200, 300, 400]
    drawn = line_chart("loss <of>", [Series("a&b", [(0, 0), (10, 1)])])
    assert 'points="52.0,210.0 510.0,10.0"' in drawn
    assert "loss &lt;of&gt;" in drawn
    assert "a&amp;b" in drawn


def test_the_figures_are_those_of_evaluate(masks: Path, scenes: Path, tmp_path: Path) -> None:
    written = write_page([masks], tmp_path / "report.html", Silent())
    text = (tmp_path / "report.html").read_text("utf-8")
    expected = evaluate_labels(masks, open_data(scenes, split="val"))
    assert written["output"] == str(tmp_path / "report.html")
    assert (written["bytes"], written["scored"], written["images"]) == (len(text.encode()), 8, 8)
    assert f"<b>{100 * expected.mean_iou:.1f}</b></td><td>{100 * expected.pixel_accuracy:.1f}" in text
    assert 0.5 < expected.mean_iou < 1
    assert "masks <b>" not in text  # names are escaped


def test_data_without_masks_leaves_the_scores_out(masks: Path, tmp_path: Path) -> None:
    manifest = json.loads((masks / "manifest.json").read_text())
    (masks / "manifest.json").write_text(json.dumps(manifest | {"choices": {}}))
    assert write_page([masks], tmp_path / "report.html", Silent())["scored"] == 0
    assert "names no data and split" in (tmp_path / "report.html").read_text("utf-8")


def test_two_runs_side_by_side(run: Path, masks: Path, label_folder: Callable[..., Path], tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    again = label_folder(tmp_path / "again", lambda label_HW: label_HW)
    write_page([run, other, masks, again], tmp_path / "report.html", Silent())
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "mean_iou of the runs, by step" in text
    assert "IoU by class, side by side" in text
    assert "How far two folders agree" in text
    write_page([run, masks], tmp_path / "report.html", Silent())
    assert "side by side" not in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize("there", [True, False])
def test_another_folder_is_refused(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="neither a run" if there else "no such folder"):
        write_page([tmp_path / "other"], tmp_path / "report.html", Silent())
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it(masks: Path, run: Path, tmp_path: Path, browser: Callable[..., Any], scheme: Any) -> None:
    write_page([run, masks], tmp_path / "report.html", Silent(), limit=0)
    page = browser(tmp_path / "report.html", color_scheme=scheme)
    assert page.get_by_role("img").count() == 4
    assert page.get_by_role("img", name="validation of").count() == 2
    assert page.get_by_role("heading", name="masks <b>").count() == 2
    assert page.get_by_role("rowheader", name="bee", exact=True).count() == 1
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert dark == (scheme == "dark")
