import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wsss.data.masks import IGNORE_INDEX, write_mask
from wsss.data.records import Record, TaggedSet
from wsss.errors import DataError, UsageError
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.inference.evaluate import count_labels, count_scores, evaluate_labels, evaluate_scores, strongest_class
from wsss.inference.score_shards import count_shard, merge_scores
from wsss.outputs.manifest import crossing, find_predictions
from wsss.reporting import Silent
from wsss.shard import Shard

CLASSES = ("cat", "dog")
TRUTHS = {
    "a": [[0, 1, 1], [0, 0, IGNORE_INDEX]],
    "sub/b": [[2, 2], [2, 0], [0, 0]],
    "c": [[0, 0, 0, 0]],
}
MANIFEST = {
    "kind": "pseudo",
    "classes": list(CLASSES),
    "split": "train",
    "scales": [0.5, 1.0],
    "flip": True,
    "crf": True,
    "method": "getam",
    "seconds": 3,
}


def label(rows: list[list[int]]) -> NDArray[np.uint8]:
    return np.array(rows, dtype=np.uint8)


def tagged_set(root: Path, names: list[str], split: str = "val") -> TaggedSet:
    records = tuple(Record(name=name, image=root / f"{name}.jpg", tags=()) for name in names)
    return TaggedSet(root=root, split=split, classes=CLASSES, records=records, mask_folder=root / "masks")


@pytest.fixture
def tagged(tmp_path: Path) -> TaggedSet:
    """Three images with masks and one without."""
    for name, rows in TRUTHS.items():
        write_mask(tmp_path / "masks" / f"{name}.png", label(rows))
    return tagged_set(tmp_path, [*TRUTHS, "no-mask"])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Perfect label maps with a manifest."""
    for name, rows in TRUTHS.items():
        write_mask(tmp_path / "out" / "labels" / f"{name}.png", label(rows))
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(MANIFEST))
    return tmp_path / "out"


def write_scores(path: Path, scores: Any, classes: Any, size: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, scores=np.asarray(scores), classes=np.asarray(classes), size=np.asarray(size))


def write_all_scores(out: Path) -> None:
    """Scores of the present class at image size: 204 (0.8) on the object, 102 (0.4) elsewhere."""
    for name, rows in TRUTHS.items():
        truth_HW = label(rows)
        index = max(1, int(truth_HW[truth_HW != IGNORE_INDEX].max()))
        scores_Chw = np.where(truth_HW == index, 204, 102).astype(np.uint8)[None]
        write_scores(out / "scores" / f"{name}.npz", scores_Chw, [index - 1], truth_HW.shape)


def test_perfect_labels_and_their_settings(tagged: TaggedSet, out: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = evaluate_labels(out, tagged, on_progress=lambda done, total: seen.append((done, total)))
    assert report.to_json() == {
        "split": "val",
        "kind": "pseudo",
        "method": "getam",
        "scales": [0.5, 1.0],
        "flip": True,
        "crf": True,
        "threshold_rule": "none",
        "images": 3,
        "unscored": 1,
        "missing": 0,
        "supervision": None,
        "mean_iou": 1.0,
        "per_class_iou": {"background": 1.0, "cat": 1.0, "dog": 1.0},
        "pixel_accuracy": 1.0,
        "coverage": 1.0,
        "remarks": [],
    }
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert evaluate_labels(out / "labels", tagged) == report


def test_one_matrix_over_the_data_set_with_ignored_predictions_wrong(tagged: TaggedSet, out: Path) -> None:
    write_mask(out / "labels" / "a.png", label([[0, 1, IGNORE_INDEX], [0, 1, 1]]))
    report = evaluate_labels(out, tagged)
    # background: 2 + 3 + 4 right, one lost to cat; cat: 1 right of 1 + 1 unknown + 1 of the background
    assert report.per_class_iou == {"background": 9 / 10, "cat": 1 / 3, "dog": 1.0}
    assert report.mean_iou == pytest.approx((9 / 10 + 1 / 3 + 1) / 3)
    assert report.pixel_accuracy == pytest.approx(13 / 15)
    assert report.coverage == pytest.approx(14 / 15)


def test_settings_of_a_plain_folder_are_unknown(tagged: TaggedSet, tmp_path: Path) -> None:
    report = evaluate_labels(tmp_path / "masks", tagged)
    assert (report.kind, report.method, report.scales, report.flip, report.crf) == ("labels", *[None] * 4)
    assert report.mean_iou == 1


def test_classes_of_empty_union_and_empty_truth_become_null(tmp_path: Path) -> None:
    write_mask(tmp_path / "masks" / "x.png", label([[0, IGNORE_INDEX]]))
    write_mask(tmp_path / "masks" / "y.png", label([[IGNORE_INDEX]]))
    one = evaluate_labels(tmp_path / "masks", tagged_set(tmp_path, ["x"])).to_json()
    assert one["per_class_iou"] == {"background": 1.0, "cat": None, "dog": None}
    none = evaluate_labels(tmp_path / "masks", tagged_set(tmp_path, ["y"])).to_json()
    assert none["mean_iou"] is none["pixel_accuracy"] is none["coverage"] is None
    json.dumps(none, allow_nan=False)


def test_missing_predictions_are_refused(tagged: TaggedSet, out: Path) -> None:
    (out / "labels" / "a.png").unlink()
    with pytest.raises(DataError, match=r"1 of the 3 masked images of split 'val' \(a\)"):
        evaluate_labels(out, tagged)
    with pytest.raises(DataError, match=r"no NAME\.npz for 3 of the 3") as caught:
        evaluate_scores(out, tagged)
    assert "--save-scores" in caught.value.fix


def test_missing_predictions_count_as_wrong_where_asked(tagged: TaggedSet, out: Path) -> None:
    """The three images have 5, 6 and 4 scored pixels."""
    (out / "labels" / "a.png").unlink()
    report = evaluate_labels(out, tagged, missing_as_wrong=True, errors=True)
    assert (report.images, report.missing, report.unscored) == (3, 1, 1)
    assert report.per_class_iou["cat"] == 0.0
    assert report.pixel_accuracy == report.coverage == pytest.approx(10 / 15)
    assert report.errors is not None
    assert report.errors.all_classes.pixels["ignored"] == 5
    for path in (out / "labels").rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"no NAME\.png for 3 of the 3"):
        evaluate_labels(out, tagged, missing_as_wrong=True)


def test_a_run_is_no_folder_of_predictions(tagged: TaggedSet, out: Path) -> None:
    (out / "run.json").write_text("{}")
    with pytest.raises(DataError, match="is a run") as caught:
        evaluate_labels(out, tagged)
    assert caught.value.fix.startswith("wsss predict ")


def test_another_size_names_both(tagged: TaggedSet, out: Path) -> None:
    write_mask(out / "labels" / "a.png", label([[0, 1], [0, 0], [0, 0]]))
    with pytest.raises(DataError, match=r"labels/a\.png is 3 x 2 .*masks/a\.png is 2 x 3"):
        evaluate_labels(out, tagged)


def test_an_unknown_class_in_a_mask_is_named(tagged: TaggedSet, out: Path) -> None:
    write_mask(tagged.root / "masks" / "c.png", label([[0, 0, 7, 0]]))
    with pytest.raises(DataError, match=r"masks/c\.png: holds class index 7, expected 0\.\.2 \(cat, dog\)"):
        evaluate_labels(out, tagged)


def test_no_masks_is_an_error_with_a_fix(tmp_path: Path, out: Path) -> None:
    with pytest.raises(DataError, match="no mask of the 1 images of split 'val'") as caught:
        evaluate_labels(out, tagged_set(tmp_path, ["elsewhere"]))
    assert caught.value.fix.endswith(f"ls {tmp_path / 'masks'}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["dog", "cat"]}, "made for the classes dog, cat;.* has cat, dog"),
        ({"classes": ["cat"]}, "made for the classes cat;"),
        ({"flip": "sometimes"}, r"manifest\.json: flip: "),
        ({"scales": 1}, r"manifest\.json: scales: "),
    ],
)
def test_a_manifest_that_does_not_fit(tagged: TaggedSet, out: Path, change: dict[str, object], message: str) -> None:
    (out / "manifest.json").write_text(json.dumps(MANIFEST | change))
    with pytest.raises(DataError, match=message):
        evaluate_labels(out, tagged)


def test_a_broken_manifest_or_folder(tagged: TaggedSet, out: Path, tmp_path: Path) -> None:
    (out / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: Invalid JSON"):
        evaluate_labels(out, tagged)
    with pytest.raises(DataError, match="no such folder"):
        find_predictions(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, "0.077"),
        ({"background": "power", "exponent": 32}, "0.077"),
        ({"background": "power", "exponent": 1}, "0.50"),
        ({"background": "band", "low": 0.2, "high": 0.5}, "0.35"),
        ({"background": "band"}, "0.077"),
    ],
)
def test_the_fixed_threshold_is_that_of_the_background_rule(
    tagged: TaggedSet, out: Path, rule: dict[str, Any], expected: str
) -> None:
    write_all_scores(out)
    (out / "manifest.json").write_text(json.dumps({**MANIFEST, **rule}))
    report = evaluate_scores(out, tagged)
    assert report.fixed.threshold_rule == f"fixed {expected}"
    assert report == evaluate_scores(out, tagged, fixed_threshold=float(expected))


def test_the_published_threshold_is_the_crossing_of_its_rule() -> None:
    for exponent in (1, 8, 32):
        score = crossing(exponent)
        assert (1 - score + 0.001) ** exponent >= score - 0.001
        assert (1 - score - 0.001) ** exponent <= score + 0.001
    assert crossing(32) == 0.077


def test_what_predictions_come_from_is_in_the_report(tagged: TaggedSet, out: Path) -> None:
    (out / "manifest.json").write_text(json.dumps({**MANIFEST, "supervision": ["tags", "label maps"]}))
    assert evaluate_labels(out, tagged).supervision == ("tags", "label maps")


def test_seeds_at_a_fixed_threshold_and_the_oracle(tagged: TaggedSet, out: Path) -> None:
    write_all_scores(out)
    report = evaluate_scores(out, tagged, fixed_threshold=0.3)  # 0.4 > 0.3: no background is left
    assert report.fixed.threshold_rule == "fixed 0.30"
    assert report.fixed.per_class_iou == {
        "background": 0.0,
        "cat": 2 / 9,
        "dog": 3 / 6,
    }
    assert report.oracle.threshold_rule == "oracle 0.40"  # 102 / 255 does not exceed 0.40
    assert report.oracle.mean_iou == 1
    assert (report.oracle.kind, report.oracle.crf, report.oracle.method) == ("seed", False, "getam")
    assert set(report.to_json()) == {"fixed", "oracle"}


def test_own_thresholds_for_the_oracle(tagged: TaggedSet, out: Path) -> None:
    write_all_scores(out)
    report = evaluate_scores(out / "labels", tagged, thresholds=[0.1, 0.625, 0.9])
    assert report.oracle.threshold_rule == "oracle 0.625"


@pytest.mark.parametrize(
    ("scores", "classes", "size"),
    [
        (np.zeros((1, 2, 3), np.float32), [0], [2, 3]),
        (np.zeros((2, 2, 3), np.uint8), [0], [2, 3]),
        (np.zeros((1, 2, 3), np.uint8), [2], [2, 3]),
        (np.zeros((1, 2, 3), np.uint8), [0], [2, 3, 1]),
    ],
)
def test_scores_that_do_not_fit(tagged: TaggedSet, out: Path, scores: Any, classes: Any, size: Any) -> None:
    write_all_scores(out)
    write_scores(out / "scores" / "a.npz", scores, classes, size)
    with pytest.raises(DataError, match=r"a\.npz: scores .* expected uint8"):
        evaluate_scores(out, tagged)


def test_scores_that_cannot_be_read(tagged: TaggedSet, out: Path) -> None:
    write_all_scores(out)
    path = out / "scores" / "a.npz"
    for content in (b"no archive", b"", path.read_bytes()[:80]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npz: unreadable scores"):
            evaluate_scores(out, tagged)


def test_scores_that_claim_a_huge_image(tagged: TaggedSet, out: Path) -> None:
    write_all_scores(out)
    write_scores(out / "scores" / "a.npz", np.zeros((1, 2, 3), np.uint8), [0], [10**9, 10**9])
    with pytest.raises(DataError, match=r"a\.npz is 1000000000 x 1000000000"):
        evaluate_scores(out, tagged)


def test_strongest_class_equals_torch_upsampling() -> None:
    rng = np.random.default_rng(0)
    scores_Chw, classes_C = rng.random((3, 4, 6)).astype(np.float32), np.array([4, 0, 2])
    best_HW, class_HW = strongest_class(scores_Chw, classes_C, (31, 50))
    full_CHW = torch.nn.functional.interpolate(
        torch.from_numpy(scores_Chw)[None], size=(31, 50), mode="bilinear", align_corners=False
    )[0]
    expected_HW, winner_HW = full_CHW.max(dim=0)
    np.testing.assert_allclose(best_HW, expected_HW, atol=1e-5)
    np.testing.assert_array_equal(class_HW, classes_C[winner_HW] + 1)


def test_no_present_class_is_all_background() -> None:
    best_HW, class_HW = strongest_class(np.zeros((0, 2, 2), np.float32), np.zeros(0, int), (3, 4))
    assert not best_HW.any()
    assert (class_HW == 1).all()


@pytest.mark.real
@pytest.mark.skipif("WSSS_VOC_ANIMALS" not in os.environ, reason="WSSS_VOC_ANIMALS is not set")
def test_real_masks_score_1_against_themselves() -> None:
    root = Path(os.environ["WSSS_VOC_ANIMALS"])
    names = (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    classes = tuple((root / "classes.txt").read_text().split())
    records = tuple(Record(name=name, image=root / "JPEGImages" / f"{name}.jpg", tags=()) for name in names)
    masks = root / "SegmentationClass"
    tagged = TaggedSet(root=root, split="val", classes=classes, records=records, mask_folder=masks)
    report = evaluate_labels(masks, tagged)
    assert (report.images, report.mean_iou, report.coverage) == (len(names), 1.0, 1.0)
    assert len(report.per_class_iou) == ConfusionMatrix(len(classes) + 1).num_classes


def test_a_band_at_zero_is_a_threshold_of_zero(tagged: TaggedSet, out: Path) -> None:
    """And not the published one, which stands in where the manifest names no rule."""
    write_all_scores(out)
    (out / "manifest.json").write_text(json.dumps(MANIFEST | {"background": "band", "low": 0.0, "high": 0.0}))
    assert evaluate_scores(out, tagged).fixed.threshold_rule == "fixed 0.00"


def test_predictions_that_may_not_be_read_are_not_missing(
    tagged: TaggedSet, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if "labels/" in os.fspath(path):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return plain(path, *args, **kwargs)

    plain = os.stat
    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(DataError, match="Permission denied"):
        evaluate_labels(out, tagged, missing_as_wrong=True)


def count_all(
    folder: Path, tagged: TaggedSet, out: Path, count: int, *, but: tuple[int, ...] = (), **options: Any
) -> None:
    """Count the shards of the label maps in ``out``, one after the other."""
    for shard in (Shard(i, count) for i in range(count) if i not in but):
        counting = partial(count_labels, out, tagged, shard=shard, **options)
        count_shard(folder, shard, out, tagged, Silent(), counting, options)


def test_the_sum_of_shards_is_the_whole(tagged: TaggedSet, out: Path, tmp_path: Path) -> None:
    write_mask(out / "labels" / "c.png", label([[0, 1, 2, IGNORE_INDEX]]))
    write_mask(out / "labels" / "a.png", label([[0, 1, 0], [2, 0, 1]]))
    for number, options in enumerate(({}, {"errors": True}, {"sizes": True}, {"missing_as_wrong": True})):
        folder = tmp_path / f"counts-{number}"
        if number == 3:
            (out / "labels" / "c.png").unlink()
        count_all(folder, tagged, out, 3 if number % 2 else 6, **options)  # some of 6 have no image
        whole = evaluate_labels(out, tagged, **options)
        assert merge_scores(folder, Silent()).to_json() == whole.to_json()
        assert json.loads((folder / "scores.json").read_text()) == whole.to_json()
        assert [path.name for path in folder.iterdir()] == ["scores.json"]


def test_the_sum_of_shards_of_scores_is_the_whole(tagged: TaggedSet, out: Path, tmp_path: Path) -> None:
    write_all_scores(out)
    for shard in (Shard(0, 2), Shard(1, 2)):
        counting = partial(count_scores, out, tagged, shard=shard)
        count_shard(tmp_path / "counts", shard, out, tagged, Silent(), counting, {})
    assert merge_scores(tmp_path / "counts", Silent()) == evaluate_scores(out, tagged)


def test_shards_of_a_score_that_do_not_fit_are_named(tagged: TaggedSet, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "counts"
    count_all(folder, tagged, out, 3, but=(1,))
    with pytest.raises(DataError, match="2 of 3 shards are done; missing: 1/3"):
        merge_scores(folder, Silent())
    with pytest.raises(UsageError, match="3 shards that are not merged, now it is to be made by 2 shards"):
        count_all(folder, tagged, out, 2)
    records = folder / "shards"
    shutil.copy(records / "0-of-3.json", records / "1-of-3.json")
    with pytest.raises(DataError, match="shards overlap: 1/3 hold images of others"):
        merge_scores(folder, Silent())
    count_all(folder, tagged, out, 3, but=(0, 2), errors=True)
    with pytest.raises(DataError, match="made with other settings than the rest: shard 1/3 of 3"):
        merge_scores(folder, Silent())
    (out / "labels" / "sub" / "b.png").unlink()
    with pytest.raises(DataError, match=r"no NAME\.png for 1 of the 1 masked images"):
        count_all(folder, tagged, out, 3, but=(0, 2))
    with pytest.raises(DataError, match="begun and not finished: 1/3"):
        merge_scores(folder, Silent())
    with pytest.raises(UsageError, match="need a folder of their own"):
        count_all(out, tagged, out, 3)
