import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wsss.data.masks import IGNORE_INDEX, PALETTE
from wsss.outputs.palettes import palette_of
from wsss.outputs.pictures import (
    CAPTION_HEIGHT,
    CAPTION_SIZE,
    GAP,
    HATCH_DARK,
    HATCH_LIGHT,
    HATCH_PERIOD,
    HATCH_WEIGHT,
    INK,
    KEY_MIN_WIDTH,
    LETTERS_ACROSS,
    PHOTO_DARK,
    PHOTO_LIGHT,
    contact_sheet,
    key,
    overlay,
    with_key,
    write_jpeg,
)


def flat(height: int, width: int, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    return np.full((height, width, 3), colour, dtype=np.uint8)


def grey(level: int) -> int:
    """What a grey level of a photo becomes below colours."""
    return round(PHOTO_DARK + (PHOTO_LIGHT - PHOTO_DARK) * level / 255)


def test_a_photo_becomes_grey_and_classes_are_blended() -> None:
    label_HW = np.array([[0, 0, 2, 2]] * 4, dtype=np.uint8)
    drawn_HW3 = overlay(flat(4, 4, (100, 100, 100)), label_HW, alpha=0.25)
    assert drawn_HW3[0, 0].tolist() == [grey(100)] * 3
    assert drawn_HW3[0, 1].tolist() == [grey(100)] * 3  # the background has no contour
    assert drawn_HW3[0, 2].tolist() == PALETTE[2].tolist()  # the contour, in the colour of the class
    expected = 0.75 * (PHOTO_DARK + (PHOTO_LIGHT - PHOTO_DARK) * 100 / 255) + 0.25 * PALETTE[2]
    assert drawn_HW3[0, 3].tolist() == np.rint(expected).tolist()


def test_a_colour_means_the_same_on_every_photo() -> None:
    """Photos of one lightness and any hue give the same picture."""
    label_HW = np.zeros((6, 6), dtype=np.uint8)
    label_HW[1:5, 1:5] = 3
    red, blue = flat(6, 6, (200, 0, 0)), flat(6, 6, (0, 70, 165))  # both of luma 60
    assert (overlay(red, label_HW) == overlay(blue, label_HW)).all()
    black_HW3, white_HW3 = (overlay(flat(6, 6, (level,) * 3), label_HW).astype(int) for level in (0, 255))
    assert np.ptp(black_HW3[0, 0]) == 0
    assert (white_HW3 - black_HW3).max() <= PHOTO_LIGHT - PHOTO_DARK


def test_both_sides_of_a_border_have_a_contour() -> None:
    label_HW = np.array([[1, 1, 1, 2, 2, 2]] * 5, dtype=np.uint8)
    drawn_HW3 = overlay(flat(5, 6, (0, 0, 0)), label_HW, palette="colorblind")
    full_HW = (drawn_HW3 == palette_of("colorblind")[label_HW]).all(axis=2)
    assert full_HW[2].tolist() == [False, False, True, True, False, False]


def test_contours_grow_with_the_picture() -> None:
    label_HW = np.zeros((1400, 1400), dtype=np.uint8)
    label_HW[:, 700:] = 4
    drawn_HW3 = overlay(np.zeros((1400, 1400, 3), dtype=np.uint8), label_HW)
    full_HW = (drawn_HW3 == PALETTE[4]).all(axis=2)
    assert full_HW[0].nonzero()[0].tolist() == [700, 701]


def stripes(level: int) -> set[int]:
    return {round((1 - HATCH_WEIGHT) * grey(level) + HATCH_WEIGHT * stripe) for stripe in (HATCH_LIGHT, HATCH_DARK)}


def test_ignored_pixels_are_hatched() -> None:
    label_HW = np.full((16, 16), IGNORE_INDEX, dtype=np.uint8)
    label_HW[:4] = label_HW[12:] = 1
    drawn_HW3 = overlay(flat(16, 16, (0, 0, 0)), label_HW, alpha=1.0)
    assert {*np.unique(drawn_HW3[4:12]).tolist()} == stripes(0)
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
    assert (sheet_HW3[GAP + 20 : GAP + 20 + CAPTION_HEIGHT, GAP : GAP + 40] < 128).any()  # the caption is drawn
    assert (sheet_HW3[:, -GAP:] == 255).all()


@pytest.mark.parametrize(("count", "columns", "width"), [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_an_empty_sheet_is_refused(count: int, columns: int, width: int) -> None:
    with pytest.raises(ValueError, match="cannot lay"):
        contact_sheet([("", flat(1, 1, (0, 0, 0)))] * count, columns, width)


def test_colours_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.jpg"
    write_jpeg(path, flat(8, 8, (200, 100, 30)))
    with Image.open(path) as image:
        read_HW3 = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(read_HW3 - [200, 100, 30]).max() <= 6
    assert [file.name for file in path.parent.iterdir()] == [path.name]


LINE = CAPTION_HEIGHT
ANIMALS = ("cat", "cow", "dog", "horse", "person", "sheep")


def places(strip_HW3: NDArray[np.uint8], index: int) -> tuple[int, ...]:
    """Top, left, height, width and number of the pixels that have the tone of a class index inside its swatch."""
    middle = (PHOTO_DARK + PHOTO_LIGHT) / 2
    tone_3 = 0.5 * middle + 0.5 * PALETTE[index]
    rows, columns = (np.abs(strip_HW3 - tone_3) <= 1).all(axis=2).nonzero()
    return int(rows.min()), int(columns.min()), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1, len(rows)


def held(*indices: int) -> NDArray[np.uint8]:
    return np.array(indices, dtype=np.uint8)


def hatched(strip_HW3: NDArray[np.uint8]) -> bool:
    """Whether the inside of a swatch in the first line is the hatch."""
    inside = CAPTION_SIZE - 4
    middle = (PHOTO_DARK + PHOTO_LIGHT) // 2
    lit = np.add.outer(np.arange(inside), np.arange(inside)) % HATCH_PERIOD < HATCH_PERIOD // 2
    hatch = np.rint((1 - HATCH_WEIGHT) * middle + HATCH_WEIGHT * np.where(lit, HATCH_LIGHT, HATCH_DARK))[..., None]
    line_HW3 = strip_HW3[GAP + 2 : GAP + 2 + inside]
    return any((line_HW3[:, x : x + inside] == hatch).all() for x in range(strip_HW3.shape[1] - inside))


def test_a_key_shows_each_class_held_in_its_tone() -> None:
    strip_HW3 = key(np.array([[0, 5, 5], [0, 4, 5]], dtype=np.uint8), ANIMALS, 300)
    inside = CAPTION_SIZE - 4
    assert strip_HW3.shape == (GAP + LINE, 300, 3)
    assert places(strip_HW3, 4) == (GAP + 2, GAP + 2, inside, inside, inside**2)
    top, left, *size = places(strip_HW3, 5)
    assert (top, size) == (GAP + 2, [inside, inside, inside**2])
    assert left > GAP + 2 * CAPTION_SIZE
    assert (strip_HW3[GAP, GAP : GAP + CAPTION_SIZE] == PALETTE[4]).all()  # framed as the contour is drawn
    absent = [index for index in (1, 2, 3, 6) if (strip_HW3 == PALETTE[index]).all(axis=2).any()]
    assert absent == []
    assert not hatched(strip_HW3)
    between_HW3 = strip_HW3[:, GAP + CAPTION_SIZE + 2 : left - 4]
    assert (between_HW3 <= INK + 40).all(axis=2).any()  # a name is written after the swatch


def test_the_tone_of_a_key_is_that_of_the_picture() -> None:
    """On a photo of middle grey they are equal."""
    drawn_HW3 = overlay(flat(40, 40, (128, 128, 128)), np.full((40, 40), 3, dtype=np.uint8), palette="colorblind")
    strip_HW3 = key(held(3), ANIMALS, 200, "colorblind")
    assert drawn_HW3[20, 20].tolist() == strip_HW3[GAP + 5, GAP + 5].tolist()


def test_a_key_names_the_classes() -> None:
    """Other names give the same swatch and other letters; names of classes that are not in the map change nothing."""
    cow_HW3 = key(held(2), ANIMALS, 200)
    assert (cow_HW3 == key(held(0, 2, 2), ("bear", "cow"), 200)).all()
    other_HW3 = key(held(2), ("cat", "kangaroo"), 200)
    assert places(cow_HW3, 2) == places(other_HW3, 2)
    assert (cow_HW3 != other_HW3).any()


@pytest.mark.parametrize(("indices", "expected"), [((0, 2), False), ((0, 2, 255), True), ((255,), True), ((0,), False)])
def test_the_hatch_is_explained_where_pixels_are_ignored(indices: tuple[int, ...], expected: bool) -> None:
    assert hatched(key(held(*indices), ANIMALS, 260)) == expected


def test_background_alone_is_said_without_a_swatch() -> None:
    strip_HW3 = key(held(0, 0), ANIMALS, 200)
    assert (strip_HW3 < 128).any()
    assert (strip_HW3 == strip_HW3[..., :1]).all()  # grey letters
    assert strip_HW3.shape == (GAP + LINE, 200, 3)
    assert (strip_HW3 != key(held(1), ANIMALS, 200)).any()


@pytest.mark.parametrize(("width", "in_a_line"), [(60, 1), (160, 1), (301, 2), (700, 5)])
def test_many_classes_wrap_and_none_is_lost(width: int, in_a_line: int) -> None:
    names = ("class number",) * 30
    indices = [index for index in range(1, 31) if index != 7]  # that is the grey of some letters' edges
    strip_HW3 = key(held(*indices), names, width)
    lines = math.ceil(len(indices) / in_a_line)
    assert strip_HW3.shape == (GAP + LINE * lines, width, 3)
    corners = [places(strip_HW3, index)[:2] for index in indices]
    assert [top for top, _ in corners] == [GAP + 2 + LINE * (k // in_a_line) for k in range(len(indices))]
    assert {left for _, left in corners[::in_a_line]} == {GAP + 2}
    assert (strip_HW3[:, -GAP:] == 255).all()


def test_a_long_name_is_cut() -> None:
    long_HW3 = key(held(1, 2), ("long " * 500, "cow"), 200)
    assert long_HW3.shape == (GAP + 2 * LINE, 200, 3)
    assert (long_HW3[:, -GAP:] == 255).all()
    assert (long_HW3[:LINE, -GAP - 20 :] < 128).any()
    assert (long_HW3 == key(held(1, 2), ("long " * 80, "cow"), 200)).all()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("L\u00f6we", "Lowe"), ("two\n lines", "two lines"), ("\u9a6c", "\u725b"), ("Stra\u00dfe", "Stra\u00fee")],
)
def test_names_that_the_font_cannot_draw(name: str, shown: str) -> None:
    """Accents are removed; another letter that the font lacks is drawn as a box."""
    assert (key(held(1), (name,), 200) == key(held(1), (shown,), 200)).all()


@pytest.mark.parametrize(("name", "expected"), [("cow", False), ("\u9a6c", True)])
def test_the_index_distinguishes_names_that_cannot_be_drawn(name: str, expected: bool) -> None:
    beside = GAP + CAPTION_SIZE
    first_HW3, second_HW3 = (key(held(index), (name, name), 200)[:, beside:] for index in (1, 2))
    assert (first_HW3 != second_HW3).any() == expected


@pytest.mark.parametrize("name", ["", " ", "\0", "\u202eabc", "\U0001f40e", "\u0301", "\r", "\u2028"])
def test_any_name_gets_a_swatch(name: str) -> None:
    assert places(key(held(3), ("a", "b", name), 90), 3)[:2] == (GAP + 2, GAP + 2)


def test_letters_grow_with_the_picture() -> None:
    small, large = (places(key(held(1), ANIMALS, width), 1)[2] + 4 for width in (LETTERS_ACROSS * 13, 3000))
    assert (small, large) == (13, 50)


def test_a_picture_with_its_key() -> None:
    picture_HW3 = flat(30, 210, (1, 2, 3))
    label_HW = np.full((30, 210), 6, dtype=np.uint8)
    whole_HW3 = with_key(picture_HW3, label_HW, ANIMALS)
    assert (whole_HW3[:30] == picture_HW3).all()
    assert (whole_HW3[30:] == key(label_HW, ANIMALS, 210)).all()
    assert (whole_HW3 == with_key(picture_HW3, label_HW, ANIMALS)).all()


def test_a_narrow_picture_gets_a_margin() -> None:
    whole_HW3 = with_key(flat(30, 40, (1, 2, 3)), held(1), ANIMALS)
    assert whole_HW3.shape == (30 + GAP + LINE, KEY_MIN_WIDTH, 3)
    assert (whole_HW3[:30, :40] == (1, 2, 3)).all()
    assert (whole_HW3[:30, 40:] == 255).all()


@pytest.mark.parametrize("size", [(1, 65_501), (65_501, 1), (2, 70_000)])
def test_pictures_longer_than_a_jpeg_can_be_are_reduced(tmp_path: Path, size: tuple[int, int]) -> None:
    write_jpeg(tmp_path / "long.jpg", np.full((*size, 3), 200, dtype=np.uint8))
    with Image.open(tmp_path / "long.jpg") as picture:
        assert max(picture.size) == 65_500
        assert abs(int(np.asarray(picture).mean()) - 200) < 3
