"""Label completion: rules on a few pixels, completion against a readable version, the opening against OpenCV."""

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from wsss.data.masks import IGNORE_INDEX
from wsss.labels.completion import Background, BackgroundBand, PowerBackground, complete_labels, opened, remove_speckles
from wsss.maps.present import PresentMaps

POWER = PowerBackground()


def row(*classes: list[float]) -> Tensor:
    """Scores of an image of one row, one list for each class."""
    return torch.tensor(classes)[:, None, :]


def present(*flags: int) -> Tensor:
    return torch.tensor(flags, dtype=torch.bool)


def completed(
    scores_KHW: Tensor,
    present_K: Tensor,
    *,
    background: Background,
    saliency_HW: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """The label map (H, W) of one image."""
    return complete_labels(
        PresentMaps.from_dense(scores_KHW[None], present_K[None]),
        (scores_KHW.shape[1], scores_KHW.shape[2]),
        background=background,
        saliency_BHW=None if saliency_HW is None else saliency_HW[None],
        **settings,
    )[0]


def test_power_background_wins_up_to_its_crossing() -> None:
    """Scores and background scores: 0.07 < (1 - 0.07)^32 = 0.098, but 0.08 > (1 - 0.08)^32 = 0.069."""
    scores_KHW = row([0.0, 0.07, 0.08, 0.3], [0.0, 0.02, 0.01, 0.9])
    label_HW = completed(scores_KHW, present(1, 1), background=POWER, opening=0)
    assert label_HW.dtype == torch.uint8
    assert label_HW.tolist() == [[0, 0, 1, 2]]


def test_exponent_moves_the_crossing() -> None:
    scores_KHW = row([0.49, 0.5, 0.51])
    label_HW = completed(scores_KHW, present(1), background=PowerBackground(exponent=1.0), opening=0)
    assert label_HW.tolist() == [[0, 0, 1]]


def test_power_background_score_by_hand() -> None:
    assert PowerBackground(exponent=2.0).score(torch.tensor([0.0, 0.5, 1.0])).tolist() == [1.0, 0.25, 0.0]


def test_band_by_hand() -> None:
    scores_KHW = row([0.1, 0.25, 0.3, 0.55, 0.6], [0.2, 0.1, 0.5, 0.1, 0.9])
    band = BackgroundBand(low=0.25, high=0.55)
    label_HW = completed(scores_KHW, present(1, 1), background=band, opening=1)
    assert label_HW.tolist() == [[0, 0, IGNORE_INDEX, IGNORE_INDEX, 2]]


def test_absent_classes_never_win() -> None:
    scores_KHW = row([1.0, 0.9], [0.5, 0.0], [float("nan"), 1.0])
    for background in (POWER, BackgroundBand(low=0.2, high=0.4)):
        label_HW = completed(scores_KHW, present(0, 1, 0), background=background, opening=0)
        assert label_HW.tolist() == [[2, 0]]


def test_saliency_masks_by_hand() -> None:
    """Salient pixels keep a class, else are ignored; others become background. Quantile 1 mines nothing."""
    scores_KHW = row([0.9, 0.01, 0.9, 0.01])
    saliency_HW = torch.tensor([[0.8, 0.6, 0.5, 0.1]])
    label_HW = completed(
        scores_KHW, present(1), background=POWER, saliency_HW=saliency_HW, mining_quantile=1.0, opening=0
    )
    assert label_HW.tolist() == [[1, IGNORE_INDEX, 0, 0]]
    label_HW = completed(
        scores_KHW,
        present(1),
        background=BackgroundBand(low=0.1, high=0.95),
        saliency_HW=saliency_HW,
        saliency_threshold=0.2,
        mining_quantile=1.0,
        opening=0,
    )
    assert label_HW.tolist() == [[IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX, 0]]


def test_mining_by_hand() -> None:
    """Medians of the positive scores are 0.5 and 0.4, zeros not counted; the last pixel is claimed twice."""
    scores_KHW = row([0.0, 0.1, 0.5, 0.6, 0.0, 0.7], [0.0, 0.0, 0.0, 0.3, 0.4, 0.8])
    saliency_HW = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    label_HW = completed(
        scores_KHW, present(1, 1), background=POWER, saliency_HW=saliency_HW, mining_quantile=0.5, opening=0
    )
    assert label_HW.tolist() == [[0, 0, 0, 1, 0, IGNORE_INDEX]]


def test_mining_leaves_salient_pixels_alone() -> None:
    """Both classes are strong at the first two pixels; the salient one gets the stronger class."""
    scores_KHW = row([0.9, 0.9, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1])
    saliency_HW = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    label_HW = completed(
        scores_KHW, present(1, 1), background=POWER, saliency_HW=saliency_HW, mining_quantile=0.5, opening=0
    )
    assert label_HW.tolist() == [[1, IGNORE_INDEX, 0, 0]]


def test_conflict_of_three_and_class_254() -> None:
    scores_KHW = torch.zeros(254, 1, 4)
    scores_KHW[[3, 100, 252], 0, 0] = 0.9
    scores_KHW[[3, 100, 252, 253], 0, 1] = 0.1
    scores_KHW[253, 0, 2] = 0.9
    label_HW = completed(
        scores_KHW,
        scores_KHW.amax(dim=(1, 2)) > 0,
        background=POWER,
        saliency_HW=torch.zeros(1, 4),
        mining_quantile=0.5,
        opening=0,
    )
    assert label_HW.tolist() == [[IGNORE_INDEX, 0, 254, 0]]


@pytest.mark.parametrize("flags", [(0, 0), (1, 0)])
def test_nothing_seen_is_all_background(flags: tuple[int, int]) -> None:
    scores_KHW = torch.zeros(2, 1, 3)
    saliency_HW = torch.tensor([[0.9, 0.2, 0.9]])
    for background in (POWER, BackgroundBand()):
        alone_HW = completed(scores_KHW, present(*flags), background=background)
        assert alone_HW.tolist() == [[0, 0, 0]]
        label_HW = completed(scores_KHW, present(*flags), background=background, saliency_HW=saliency_HW)
        assert label_HW.tolist() == [[IGNORE_INDEX, 0, IGNORE_INDEX]]


def test_speckles_become_background_and_ignored_pixels_stay() -> None:
    """A block of two classes is kept; its thin arm becomes background, although an ignored pixel is beside it."""
    scores_KHW = torch.zeros(2, 4, 6)
    scores_KHW[0, 1:3, 1] = 1.0
    scores_KHW[1, 1:3, 2] = 1.0
    scores_KHW[0, 2, 3] = 1.0
    scores_KHW[0, 2, 4] = 0.4
    label_HW = completed(scores_KHW, present(1, 1), background=BackgroundBand(low=0.2, high=0.5), opening=2)
    assert label_HW.tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 2, 0, 0, 0],
        [0, 1, 2, 0, IGNORE_INDEX, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def readable_completion(
    scores_KHW: NDArray[np.float32], flags: list[bool], saliency_HW: NDArray[np.float32], quantile: float
) -> list[list[int]]:
    """Rules 2 and 3, pixel by pixel, with the power background."""
    _, rows, columns = scores_KHW.shape
    classes = [k for k, flag in enumerate(flags) if flag]
    limits = {}
    for k in classes:
        positive = scores_KHW[k][scores_KHW[k] > 0]
        limits[k] = np.quantile(positive, quantile, method="lower") if len(positive) else np.inf
    label = [[0] * columns for _ in range(rows)]
    for y in range(rows):
        for x in range(columns):
            best = max((scores_KHW[k, y, x] for k in classes), default=np.float32(0))
            winner = next((k + 1 for k in classes if scores_KHW[k, y, x] == best), 0)
            if (1 - best) ** 32 >= best:
                winner = IGNORE_INDEX
            claims = [k + 1 for k in classes if scores_KHW[k, y, x] > limits[k]]
            if saliency_HW[y, x] > 0.5:
                label[y][x] = winner
            elif len(claims) == 1:
                label[y][x] = claims[0]
            elif claims:
                label[y][x] = IGNORE_INDEX
    return label


@settings(max_examples=40, deadline=None)
@given(
    flags=st.lists(st.booleans(), min_size=1, max_size=4),
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    quantile=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 999),
)
def test_equals_the_readable_version(flags: list[bool], rows: int, columns: int, quantile: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores_KHW = (generator.integers(0, 9, (len(flags), rows, columns)) / 8).astype(np.float32)
    saliency_HW = generator.random((rows, columns)).astype(np.float32)
    label_HW = completed(
        torch.from_numpy(scores_KHW),
        torch.tensor(flags),
        background=POWER,
        saliency_HW=torch.from_numpy(saliency_HW),
        mining_quantile=quantile,
        opening=0,
    )
    assert label_HW.tolist() == readable_completion(scores_KHW, flags, saliency_HW, quantile)


def random_mask(seed: int, rows: int, columns: int, size: int) -> NDArray[np.uint8]:
    """A few rectangles about as large as the square, so that some survive and some do not."""
    generator = np.random.default_rng(seed)
    mask_HW = np.zeros((rows, columns), dtype=np.uint8)
    for _ in range(6):
        top, left = generator.integers(0, rows), generator.integers(0, columns)
        height, width = generator.integers(1, 2 * size + 1, 2)
        mask_HW[top : top + height, left : left + width] = 1
    return mask_HW


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    size=st.sampled_from([2, 3, 5, 10]),
)
def test_opening_equals_opencv_with_the_square_mirrored(seed: int, rows: int, columns: int, size: int) -> None:
    mask_HW = random_mask(seed, rows, columns, size)
    square = np.ones((size, size), dtype=np.uint8)
    eroded_HW = cv2.erode(mask_HW, square)
    last = size - 1 - size // 2
    expected_HW = cv2.dilate(eroded_HW, square, anchor=(last, last))
    opened_HW = opened(torch.from_numpy(mask_HW).bool()[None], size)[0].numpy()
    assert np.array_equal(opened_HW, expected_HW.astype(bool))
    if size % 2 == 1:
        assert np.array_equal(opened_HW, cv2.morphologyEx(mask_HW, cv2.MORPH_OPEN, square).astype(bool))


def test_opening_of_even_size_is_opencv_moved_back_by_one_pixel() -> None:
    mask_HW = random_mask(3, 60, 80, 10)
    mask_HW[:12], mask_HW[-12:], mask_HW[:, :12], mask_HW[:, -12:] = 0, 0, 0, 0
    shifted_HW = cv2.morphologyEx(mask_HW, cv2.MORPH_OPEN, np.ones((10, 10), dtype=np.uint8))
    opened_HW = opened(torch.from_numpy(mask_HW).bool()[None], 10)[0].numpy()
    assert opened_HW.any()
    assert np.array_equal(opened_HW[:-1, :-1], shifted_HW[1:, 1:].astype(bool))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), size=st.integers(1, 11))
def test_opening_removes_only_and_once(seed: int, size: int) -> None:
    mask_HW = torch.from_numpy(random_mask(seed, 30, 25, size)).bool()[None]
    opened_HW = opened(mask_HW, size)
    assert not (opened_HW & ~mask_HW).any()
    assert torch.equal(opened(opened_HW, size), opened_HW)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), size=st.sampled_from([2, 5, 10]), rows=st.integers(1, 60))
def test_speckles_of_bands_are_those_of_the_whole(seed: int, size: int, rows: int) -> None:
    label_BHW = torch.from_numpy(np.stack([random_mask(seed + i, rows, 25, size) for i in range(2)]))
    whole_BHW = label_BHW.masked_fill((label_BHW > 0) & ~opened(label_BHW > 0, size), 0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("wsss.labels.completion.BAND_VALUES", 1)  # bands of as many rows as the square has
        assert torch.equal(remove_speckles(label_BHW, size), whole_BHW)


def test_half_precision_scores_under_autocast() -> None:
    scores_KHW = torch.rand(2, 12, 15, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected_HW = completed(scores_KHW.float(), present(1, 1), background=POWER, opening=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        label_HW = completed(scores_KHW, present(1, 1), background=POWER, opening=2)
    assert torch.equal(label_HW, expected_HW)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    scores_KHW = torch.rand(3, 40, 50, generator=generator)
    saliency_HW = torch.rand(40, 50, generator=generator)
    expected_HW = completed(scores_KHW, present(1, 0, 1), background=POWER, saliency_HW=saliency_HW, opening=2)
    label_HW = completed(
        scores_KHW.cuda(),
        present(1, 0, 1).cuda(),
        background=POWER,
        saliency_HW=saliency_HW.cuda(),
        opening=2,
    )
    assert torch.equal(label_HW.cpu(), expected_HW)
