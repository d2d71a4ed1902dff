"""Hidden patches, mixed cells and places of cells, by hand and as laws."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsss.robustness.occlusion import Shuffle, cell_places, cells_at, fill, hidden_patches, pixels

SALIENCY = torch.tensor([[[0.1, 0.9, 0.5], [0.3, 0.2, 0.4]]])
NAMES = ("a", "b", "c")


def test_the_order_by_hand() -> None:
    salient = hidden_patches(SALIENCY, 0.5, "salient", ["a"])
    assert salient.tolist() == [[[False, True, True], [False, False, True]]]
    background = hidden_patches(SALIENCY, 0.5, "background", ["a"])
    assert background.tolist() == [[[True, False, False], [True, True, False]]]
    assert not hidden_patches(SALIENCY, 0, "salient", ["a"]).any()
    assert hidden_patches(SALIENCY, 1, "background", ["a"]).all()


def test_random_patches_follow_from_the_name_and_grow() -> None:
    saliency = torch.zeros(3, 4, 5)
    few, many = (hidden_patches(saliency, share, "random", NAMES) for share in (0.25, 0.75))
    assert few.flatten(1).sum(dim=1).tolist() == [5, 5, 5]
    assert many.flatten(1).sum(dim=1).tolist() == [15, 15, 15]
    assert (many | ~few).all()  # what was hidden stays so
    assert torch.equal(hidden_patches(saliency[1:2], 0.25, "random", ["b"]), few[1:2])
    assert not torch.equal(few[0], few[1])


def test_hidden_patches_have_the_mean_colour_and_others_their_bits() -> None:
    images = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    hidden = hidden_patches(SALIENCY, 0.5, "salient", ["a"])
    filled = fill(images, hidden)
    inside = pixels(hidden, images).expand_as(images)
    assert torch.equal(filled[~inside], images[~inside])
    assert inside[0, 0, 0:4, 4:8].all()
    assert torch.equal(filled[0, :, 0, 4], images.mean(dim=(2, 3))[0])
    assert torch.equal(fill(images, torch.zeros_like(hidden)), images)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_restoring_a_mixed_image_returns_it(rows: int, columns: int, high: int, wide: int, more: int) -> None:
    images = torch.rand(3, 2, rows * high + min(more, rows - 1), columns * wide)
    shuffle = Shuffle((rows, columns), NAMES)
    mixed = shuffle.mix(images)
    size = (images.shape[2], images.shape[3])
    torch.testing.assert_close(shuffle.restore(mixed, size), images)
    torch.testing.assert_close(mixed.sum(dim=(2, 3)), images.sum(dim=(2, 3)))


def test_a_map_of_patches_is_restored() -> None:
    """Cells of 2 x 2 patches in a grid of 4 x 6: whole patches move, so the map of the mixed image moves back."""
    maps = torch.arange(24.0).reshape(1, 1, 4, 6)
    shuffle = Shuffle((2, 3), ["a"])
    assert not torch.equal(shuffle.mix(maps), maps)
    torch.testing.assert_close(shuffle.restore(shuffle.mix(maps), (64, 96)), maps)


def test_places_lie_inside_and_differ() -> None:
    places = cell_places((3, 5), 2, 5, "a")
    assert len({tuple(place) for place in places.tolist()}) == 5
    assert places[:, 0].max() <= 1
    assert places[:, 1].max() <= 3
    assert (cell_places((3, 5), 2, 5, "a") == places).all()
    assert cell_places((1, 1), 2, 3, "a").tolist() == [[0, 0]] * 3


def test_cells_by_hand() -> None:
    cells = cells_at(cell_places((2, 2), 2, 1, "a"), 2, (2, 3))
    assert cells.tolist() == [[[True, True, False], [True, True, False]]]
