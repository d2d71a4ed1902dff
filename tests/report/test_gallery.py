"""The gallery: what it holds of each image by hand, what it leaves out, and a browser that uses it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from wsss.data.dataset import open_data
from wsss.data.records import TaggedSet
from wsss.errors import DataError
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.inference.evaluate import evaluate_labels
from wsss.report import gallery as gallery_module
from wsss.report.agreement import agreements
from wsss.report.gallery import Gallery, by_interest, fitting_side
from wsss.report.layers import Cell, Item, Layer
from wsss.report.page import write_page
from wsss.report.sources import Scoring
from wsss.report.thumbnails import label_text, scores_text, small_size, unpacked
from wsss.reporting import Silent

SAME = np.arange(256, dtype=np.uint8)
Folder = Callable[..., Path]


class Saying(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def content_of(page: Path) -> Any:
    """The values that the script of a page reads."""
    text = page.read_text("utf-8").partition('id="gallery-data">')[2]
    return json.loads(text.partition("</script>")[0])


@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.sampled_from([0, 1, 2, 255])))
def test_a_packed_map_is_the_map(label_HW: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(unpacked(label_text(label_HW, 40, SAME)), label_HW)
    small_hw = unpacked(label_text(label_HW, 8, SAME))
    assert small_hw.shape == small_size(label_HW.shape, 8)  # type: ignore[arg-type]
    assert set(small_hw.flat) <= set(label_HW.flat)


def test_a_packed_class_map_by_hand() -> None:
    scores_Chw = np.array([[[0.5, 0.1]], [[0.25, 1.0]]], dtype=np.float32)
    text = scores_text(scores_Chw, np.array([0, 2]), SAME)
    assert unpacked(text).tolist() == [[1, 3]]
    index_256 = SAME.copy()
    index_256[3] = 1
    assert unpacked(scores_text(scores_Chw, np.array([0, 2]), index_256)).tolist() == [[1, 1]]


def test_pictures_are_as_large_as_there_is_room_for() -> None:
    assert [fitting_side(images, 2) for images in (24, 1000, 3000, 10_582)] == [384, 256, 128, 128]


def test_the_order_in_which_images_are_taken() -> None:
    ious, doubts = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.0, 0.0, 0.9, 0.0, 0.0, 0.0]
    items = [
        Item(name=str(k), origin=None, cells={0: Cell(iou=iou, doubt=doubt)})
        for k, (iou, doubt) in enumerate(zip(ious, doubts, strict=True))
    ]
    order = [item.name for item in by_interest(items, 1)]
    assert sorted(order) == list("012345")
    assert {"0", "2", "5"} < set(order[:4])  # the worst, the most doubtful, the best, and one by chance


def test_each_image_has_its_own_figures(label_folder: Folder, scenes: Path, tmp_path: Path) -> None:
    folder = label_folder(tmp_path / "labels")
    write_page([folder], tmp_path / "report.html", Silent())
    content = content_of(tmp_path / "report.html")
    tagged = open_data(scenes, split="val")
    lost = np.zeros(6)
    for image in content["images"]:
        record = next(record for record in tagged.records if record.name == image["name"])
        truth_HW = tagged.truth(record)
        assert truth_HW is not None
        matrix = ConfusionMatrix(3)
        matrix.update(unpacked(image["maps"][0]), truth_HW)
        np.testing.assert_array_equal(unpacked(image["truth"]), truth_HW)  # scenes are smaller than the pictures
        assert image["iou"][0] == pytest.approx(matrix.mean_iou(), abs=1e-4)
        assert image["classes"] == sorted(set(np.unique(truth_HW).tolist()) - {0, 255})
        for _, kind, share in image["errors"][0]:
            lost[kind] += share * truth_HW.size / 1000
    shares = evaluate_labels(folder, tagged, errors=True).errors
    assert shares is not None
    by_kind = list(shares.all_classes.pixels.values())
    np.testing.assert_allclose(lost, by_kind, atol=8 * 3 * 0.0005 * 48 * 64)  # thousandths are rounded


def test_layers_share_images_and_classes_of_one_name(label_folder: Folder, tmp_path: Path) -> None:
    def swapped(label_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.array([0, 2, 1], dtype=np.uint8)[label_HW]

    first = label_folder(tmp_path / "first", lambda label_HW: label_HW)
    other = label_folder(tmp_path / "other", swapped, classes=["ladybird", "bee"], kind="segmentation")
    write_page([first, other], tmp_path / "report.html", Silent(), scoring=Scoring(score=False))
    content = content_of(tmp_path / "report.html")
    assert [layer["title"] for layer in content["layers"]] == ["pseudo label", "prediction"]
    assert content["classes"] == ["background", "bee", "ladybird"]
    assert len(content["images"]) == 8
    for image in content["images"]:
        assert image["maps"][0] == image["maps"][1] != ""
        assert image["truth"] == ""


def half_ignored(label_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    label_HW[: len(label_HW) // 2] = 255
    return label_HW


def test_agreement_of_two_folders(label_folder: Folder, scenes: Path, tmp_path: Path) -> None:
    """True label maps beside the same with the upper half ignored, and beside nothing but background."""
    changes = {"true": lambda label_HW: label_HW, "half": half_ignored, "none": np.zeros_like}
    layers = [Layer.read(label_folder(tmp_path / name, change)) for name, change in changes.items()]
    gallery = Gallery([layer for layer in layers if layer is not None])
    half, none, _ = agreements(gallery, Silent())
    assert (half.first, half.second, half.images) == ("pseudo label true", "pseudo label half", 8)
    assert (half.same, half.decided, half.same_decided, half.mean_iou) == (0.5, 0.5, 1.0, 1.0)
    assert none.decided == 1
    assert none.same == none.same_decided < 1
    tagged = open_data(scenes, split="val")
    truths = {record.name: tagged.truth(record) for record in tagged.records}
    for image in gallery.content(Silent())["images"]:
        truth_HW = truths[image["name"]]
        assert truth_HW is not None
        with_true, with_half = float(np.mean(truth_HW == 0)), float(np.mean(half_ignored(truth_HW) == 0))
        assert image["agreement"][2] == pytest.approx((with_true + with_half) / 2, abs=1e-4)


def test_without_scoring_no_mask_is_opened(
    label_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a mask was asked for")

    folder = label_folder(tmp_path / "labels")
    for name in ("truth", "has_truth", "mask_path", "has_masks"):
        monkeypatch.setattr(TaggedSet, name, refuse)
    reporter = Saying()
    written = write_page([folder], tmp_path / "report.html", reporter, scoring=Scoring(score=False))
    assert (written["scored"], written["images"], reporter.said) == (0, 8, [])


def test_doubt_is_the_share_of_ignored_pixels(label_folder: Folder, tmp_path: Path) -> None:
    layer = Layer.read(label_folder(tmp_path / "labels", half_ignored))
    assert layer is not None
    assert {layer.doubt(name) for name in layer.labels} == {0.5}


def test_images_beyond_the_room_are_left_out_and_counted(
    label_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = label_folder(tmp_path / "labels")
    write_page([folder], tmp_path / "all.html", Silent())
    one = len(json.dumps(content_of(tmp_path / "all.html")["images"][0]))
    monkeypatch.setattr(gallery_module, "MOST_BYTES", 4 * one)
    assert 2 <= write_page([folder], tmp_path / "some.html", Silent())["images"] < 8
    assert "of 8 images: of each folder the worst" in (tmp_path / "some.html").read_text("utf-8")
    assert write_page([folder], tmp_path / "three.html", Silent(), limit=3)["images"] <= 3


def test_photos_that_are_gone_are_said(label_folder: Folder, tmp_path: Path) -> None:
    folder = label_folder(tmp_path / "labels", choices={})
    journal = (folder / "journal.jsonl").read_text()
    (folder / "journal.jsonl").write_text(journal.replace("val_00000.jpg", "gone.jpg"))
    reporter = Saying()
    assert write_page([folder], tmp_path / "report.html", reporter)["images"] == 8
    assert "1 file of the gallery cannot be read, and left out" in reporter.said[-1]
    assert "gone.jpg" in reporter.said[-1]


def test_too_many_classes_together(label_folder: Folder, tmp_path: Path) -> None:
    names = [[f"{letter}{k}" for k in range(130)] for letter in "ab"]
    layers = [Layer.read(label_folder(tmp_path / some[0], classes=some)) for some in names]
    with pytest.raises(DataError, match="260 classes"):
        Gallery([layer for layer in layers if layer is not None])


def test_a_browser_filters_orders_and_opens(label_folder: Folder, tmp_path: Path, browser: Callable[..., Any]) -> None:
    folder = label_folder(tmp_path / "labels")
    write_page([folder], tmp_path / "report.html", Silent())
    images = content_of(tmp_path / "report.html")["images"]
    page = browser(tmp_path / "report.html")
    tiles = page.locator("#tiles button")

    def names() -> list[str]:
        return tiles.locator(".name").all_inner_texts()

    worst = [image["name"] for image in sorted(images, key=lambda image: (image["iou"][0], image["name"]))]
    assert names() == worst
    assert page.get_by_role("status").inner_text() == "8 of 8 images"
    tiles.first.scroll_into_view_if_needed()
    canvas = tiles.first.locator("canvas").first
    page.wait_for_function("canvas => canvas.width > 1 && canvas.width !== 300", arg=canvas.element_handle())
    coloured = "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.slice(0)]"
    pixels_N4 = np.array(canvas.evaluate(coloured)).reshape(-1, 4)
    index_hw = unpacked(next(image for image in images if image["name"] == worst[0])["maps"][0])
    np.testing.assert_array_equal(pixels_N4[:, 3].reshape(index_hw.shape), np.where(index_hw > 0, 255, 0))

    chosen = {name: page.get_by_role("combobox", name=re.compile(f"^{name}")) for name in ("Class", "Order", "Error")}
    chosen["Class"].select_option("bee")
    assert names() == [name for name in worst if 1 in next(i for i in images if i["name"] == name)["classes"]]
    chosen["Class"].select_option("all")
    chosen["Error"].select_option("invented")
    assert names() == []
    chosen["Error"].select_option("all")
    chosen["Order"].select_option("by name")
    assert names() == sorted(names())
    page.get_by_role("checkbox", name="truth").uncheck()
    assert tiles.first.locator(".panel").count() == 2
    page.get_by_label("Strength").fill("0")
    assert page.evaluate("getComputedStyle(document.querySelector('#tiles canvas')).opacity") == "0"

    tiles.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("heading").inner_text() == names()[1]
    page.keyboard.press("ArrowRight")
    assert dialog.get_by_role("heading").inner_text() == names()[2]
    dialog.get_by_label("From left to right").fill("25")
    assert page.locator("#stage").evaluate("stage => stage.style.getPropertyValue('--wipe')") == "25%"
    page.keyboard.press("Escape")
    assert page.locator("#tiles button:focus .name").inner_text() == names()[2]


@pytest.mark.slow
def test_its_parts_have_names_and_contrast(label_folder: Folder, tmp_path: Path, browser: Callable[..., Any]) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="pip install axe-playwright-python")
    folder = label_folder(tmp_path / "labels")
    write_page([folder], tmp_path / "report.html", Silent())
    for scheme in ("light", "dark"):
        page = browser(tmp_path / "report.html", color_scheme=scheme)
        page.set_viewport_size({"width": 320, "height": 640})  # so narrow that tables scroll
        page.evaluate(axe.AXE_SCRIPT)
        for opened in (False, True):
            if opened:
                page.locator("#tiles button").first.click()
            found = page.evaluate("axe.run()")
            assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
            assert len(found["passes"]) > 20
