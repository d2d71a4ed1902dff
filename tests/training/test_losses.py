import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsss.data.masks import IGNORE_INDEX
from wsss.training.losses import balanced_cross_entropy, classification_loss, saliency_loss


def row(*pixels: tuple[float, ...]) -> Tensor:
    """Scores of one row of pixels, each given as its C scores: (1, C, 1, W)."""
    return torch.tensor(pixels).T[None, :, None]


def label(*pixels: int) -> Tensor:
    return torch.tensor([[pixels]], dtype=torch.uint8)


def test_classification_by_hand() -> None:
    loss = classification_loss(torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_three_pixels_by_hand() -> None:
    scores = row((0.0, math.log(3.0)), (0.0, 0.0), (9.0, -9.0))
    loss = balanced_cross_entropy(scores, label(0, 1, IGNORE_INDEX))
    assert loss.item() == pytest.approx(math.log(4) + math.log(2))


def test_both_sides_weigh_the_same_however_many_pixels_they_have() -> None:
    one = row((1.0, 0.0), (0.5, 0.0))
    many = row(*[(1.0, 0.0)] * 5, (0.5, 0.0))
    expected = balanced_cross_entropy(one, label(0, 1))
    torch.testing.assert_close(balanced_cross_entropy(many, label(*[0] * 5, 1)), expected)


@pytest.mark.parametrize(("index", "other"), [(0, 1), (2, 0)])
def test_a_side_without_pixels_adds_nothing(index: int, other: int) -> None:
    pixels = ((1.0, 2.0, 3.0), (3.0, 1.0, 2.0))
    scores = row(*pixels)
    plain = torch.nn.functional.cross_entropy(scores, label(index, index).long())
    torch.testing.assert_close(balanced_cross_entropy(scores, label(index, index)), plain)
    both = sum(balanced_cross_entropy(row(p), label(i)) for p, i in zip(pixels, (index, other), strict=True))
    torch.testing.assert_close(balanced_cross_entropy(scores, label(index, other)), both)


def test_no_valid_pixel_gives_exactly_zero_and_zero_gradient() -> None:
    scores = row((1.0, -50.0), (3e4, -3e4)).requires_grad_()
    loss = balanced_cross_entropy(scores, label(IGNORE_INDEX, IGNORE_INDEX))
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.item() == 0.0
    assert not gradient.any()


def test_ignored_pixels_receive_no_gradient() -> None:
    scores = row((1.0, 2.0), (0.0, 0.0), (2.0, 1.0)).requires_grad_()
    loss = balanced_cross_entropy(scores, label(0, IGNORE_INDEX, 1))
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient.abs().sum(dim=1).bool().tolist() == [[[True, False, True]]]


@settings(max_examples=30, deadline=None)
@given(
    pixels=st.lists(st.sampled_from([0, 1, 2, IGNORE_INDEX]), min_size=1, max_size=6),
    size=st.sampled_from([0.0, 1.0, 100.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_losses_and_gradients_are_finite(pixels: list[int], size: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = (size * torch.randn(1, 3, 1, len(pixels), generator=generator)).requires_grad_()
    saliency = torch.rand(1, 1, len(pixels), generator=generator).round(decimals=1)
    loss = balanced_cross_entropy(scores, label(*pixels)) + saliency_loss(scores, saliency)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.isfinite()
    assert loss >= 0
    assert gradient.isfinite().all()


def test_saliency_by_hand() -> None:
    scores = row((0.0, 0.0, 0.0), (math.log(2.0), 0.0, 0.0), (0.0, 0.0, math.log(2.0)))
    foreground = [2 / 3, 1 / 2, 3 / 4]
    target = [1.0, 0.25, 0.0]
    expected = -sum(t * math.log(p) + (1 - t) * math.log(1 - p) for p, t in zip(foreground, target, strict=True))
    assert saliency_loss(scores, torch.tensor([[target]])).item() == pytest.approx(expected / 3)


def test_saliency_loss_of_a_confident_mistake_has_a_gradient() -> None:
    scores = row((80.0, 0.0)).requires_grad_()
    loss = saliency_loss(scores, torch.ones(1, 1, 1))
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.item() == pytest.approx(80.0)
    assert gradient.flatten().tolist() == pytest.approx([1.0, -1.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_give_float32_losses(dtype: torch.dtype) -> None:
    scores, logits = row((4.0, -4.0), (0.5, 1.0)), torch.tensor([[2.0, -1.0]])
    saliency, present = torch.tensor([[[0.25, 0.8]]]), torch.tensor([[True, False]])

    def losses(low: bool) -> list[Tensor]:
        cast = dtype if low else torch.float32
        return [
            balanced_cross_entropy(scores.to(cast), label(1, 0)),
            saliency_loss(scores.to(cast), saliency),
            classification_loss(logits.to(cast), present),
        ]

    with torch.autocast("cpu", dtype=dtype):
        low = losses(True)
    assert [loss.dtype for loss in low] == [torch.float32] * 3
    torch.testing.assert_close(low, losses(False))


def test_unknown_tags_take_no_part_in_the_classification_loss() -> None:
    logits = torch.tensor([[math.log(3.0), 50.0]], requires_grad=True)
    present, known = torch.tensor([[True, False]]), torch.tensor([[True, False]])
    loss = classification_loss(logits, present, known)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(math.log(4 / 3))
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert classification_loss(logits, present, torch.zeros_like(known)) == 0
