from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wsss.data.masks import IGNORE_INDEX, PALETTE
from wsss.evaluation.overlay import (
    CAPTION_HEIGHT,
    CONTOUR,
    GAP,
    HATCH_DARK,
    HATCH_LIGHT,
    contact_sheet,
    overlay,
    write_jpeg,
    write_png,
)


def flat(height: int, width: int, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def test_background_stays_and_classes_are_blended() -> None:
    label_HW = np.array([[0, 0, 2, 2]], dtype=np.uint8)
    drawn_HW3 = overlay(flat(1, 4, (100, 50, 10)), label_HW, alpha=0.25)
    assert drawn_HW3[0, 0].tolist() == [100, 50, 10]
    assert drawn_HW3[0, 1].tolist() == [CONTOUR] * 3
    expected = np.rint(0.75 * np.array([100, 50, 10]) + 0.25 * PALETTE[2])
    assert drawn_HW3[0, 3].tolist() == expected.tolist()


def test_ignored_pixels_are_a_light_hatch_without_contours() -> None:
    label_HW = np.full((16, 16), IGNORE_INDEX, dtype=np.uint8)
    label_HW[:4] = label_HW[12:] = 1
    drawn_HW3 = overlay(flat(16, 16, (0, 0, 0)), label_HW, alpha=1.0)
    assert set(np.unique(drawn_HW3[4:12])) == {HATCH_LIGHT, HATCH_DARK}
    assert (drawn_HW3[label_HW == 1] == PALETTE[1]).all()


def test_the_image_is_left_alone() -> None:
    image_HW3 = flat(3, 3, (9, 9, 9))
    overlay(image_HW3, np.eye(3, dtype=np.uint8))
    assert (image_HW3 == 9).all()


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="differ in size"):
        overlay(flat(2, 3, (0, 0, 0)), np.zeros((3, 2), dtype=np.uint8))


def test_a_sheet_of_three_tiles_in_two_columns() -> None:
    red, blue = (255, 0, 0), (0, 0, 255)
    tiles = [("one", flat(10, 20, red)), ("two", flat(40, 20, blue)), ("a caption too long", flat(5, 5, red))]
    sheet_HW3 = contact_sheet(tiles, columns=2, tile_width=40)
    first_row, second_row = 80 + CAPTION_HEIGHT, 40 + CAPTION_HEIGHT
    assert sheet_HW3.shape == (first_row + second_row + 3 * GAP, 2 * 40 + 3 * GAP, 3)
    assert (sheet_HW3[GAP : GAP + 20, GAP : GAP + 40] == red).all()
    assert (sheet_HW3[GAP : GAP + 80, 2 * GAP + 40 : 2 * GAP + 80] == blue).all()
    assert (sheet_HW3[first_row + 2 * GAP :][:40, GAP : GAP + 40] == red).all()
    assert (sheet_HW3[GAP + 20 : GAP + 20 + CAPTION_HEIGHT, GAP : GAP + 40] < 128).any()  # there is ink
    assert (sheet_HW3[:, -GAP:] == 255).all()


@pytest.mark.parametrize(("count", "columns", "width"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_an_empty_sheet_is_refused(count: int, columns: int, width: int) -> None:
    with pytest.raises(ValueError, match="cannot lay"):
        contact_sheet([("", flat(1, 1, (0, 0, 0)))] * count, columns, width)


@pytest.mark.parametrize(
    ("write", "suffix", "error"), [(write_png, ".png", 0), (write_jpeg, ".jpg", 6)], ids=["png", "jpeg"]
)
def test_colours_survive_the_file(
    tmp_path: Path, write: Callable[[Path, NDArray[np.uint8]], None], suffix: str, error: int
) -> None:
    path = tmp_path / "deep" / f"x{suffix}"
    write(path, flat(8, 8, (200, 100, 30)))
    with Image.open(path) as image:
        read_HW3 = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(read_HW3 - [200, 100, 30]).max() <= error
    assert [file.name for file in path.parent.iterdir()] == [path.name]
