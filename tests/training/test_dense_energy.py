import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from wsss.training.dense_energy import OWN_CLASSES, apply_affinity, dense_energy, exact_dense_energy

WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount"}
"""Operators that synchronise the device, because their shapes or results on the host depend on the data."""

PAIR_ERROR = 0.03
"""Tolerance of a pair's weight, relative to the largest; the error of one axis of the colour grid is 0.025."""


def natural_images(batch: int, height: int, width: int, *, noise: float = 0.03, seed: int = 0) -> Tensor:
    """Smooth colours, a smooth brightness and noise, in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.rand(batch, 3, 4, 5, generator=generator)
    light = torch.rand(batch, 1, 6, 6, generator=generator)
    smooth = sum(
        weight * F.interpolate(part, size=(height, width), mode="bicubic", align_corners=False)
        for part, weight in ((colour, 0.3), (light, 0.6))
    )
    return (smooth + noise * torch.randn(batch, 3, height, width, generator=generator)).clamp(0, 1)


def soft_labels(batch: int, classes: int, height: int, width: int, *, contrast: float = 4.0, seed: int = 0) -> Tensor:
    """Blobs of classes: near-uniform with little contrast, near one-hot with much."""
    generator = torch.Generator().manual_seed(seed + 1000)
    scores = contrast * torch.randn(batch, classes, 5, 5, generator=generator)
    return F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False).softmax(dim=1)


def with_gradient(
    energy: Callable[..., Tensor], images: Tensor, probabilities: Tensor, **options: object
) -> list[Tensor]:
    probabilities = probabilities.clone().requires_grad_()
    value = energy(images, probabilities, **options)
    (gradient,) = torch.autograd.grad(value, probabilities)
    return [value.detach(), gradient]


def assert_close_to_exact(
    images: Tensor, probabilities: Tensor, value: float, gradient: float, **options: object
) -> None:
    fast = with_gradient(dense_energy, images, probabilities, **options)
    exact = with_gradient(exact_dense_energy, images, probabilities, **options)
    assert fast[0].item() == pytest.approx(exact[0].item(), rel=value)
    rounding = 1e-5 * exact[0].item()  # the gradient is zero where all probabilities are 0.5
    assert (fast[1] - exact[1]).norm().item() < gradient * exact[1].norm().item() + rounding


def test_two_pixels_by_hand() -> None:
    images = torch.tensor([0.0, 30 / 255]).expand(1, 3, 1, 2)
    probabilities = torch.tensor([[[[0.9, 0.2]], [[0.1, 0.8]]]])
    affinity = math.exp(-0.5 * (1 / 4) ** 2 - 0.5 * 3 * (30 / 40) ** 2)
    alone = 2 * 0.9 * 0.1 + 2 * 0.2 * 0.8  # the pairs i = j count, with W = 1
    across = affinity * (0.9 * 0.8 + 0.1 * 0.2 + 0.2 * 0.1 + 0.8 * 0.9)
    for energy, tolerance in ((exact_dense_energy, 1e-6), (dense_energy, 0.02)):
        value = energy(images, probabilities, sigma_rgb=40.0, sigma_xy=4.0, scale=1.0)
        assert value.item() == pytest.approx(alone + across, rel=tolerance)


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.1])
@pytest.mark.parametrize(
    "options", [{"scale": 1.0}, {"scale": 0.5}, {"scale": 1.0, "sigma_xy": 15.0, "sigma_rgb": 25.0}]
)
def test_close_to_exact_on_natural_images(noise: float, options: dict[str, float]) -> None:
    images = natural_images(2, 24, 32, noise=noise)
    assert_close_to_exact(images, soft_labels(2, 7, 24, 32), 0.01, 0.02, **options)


@pytest.mark.parametrize("grey", [0.0, 0.1, 0.5, 1.0])
def test_close_to_exact_on_one_colour(grey: float) -> None:
    """On one colour the error of the colour grid does not average out, so it must be nearly zero."""
    images = torch.full((1, 3, 16, 20), grey)
    assert_close_to_exact(images, soft_labels(1, 3, 16, 20), 0.002, 0.005, scale=1.0)


@pytest.mark.parametrize("width", [4, 8, 16])
def test_close_to_exact_on_a_ramp_cut_into_classes(width: int) -> None:
    """The hardest case: grey changes along all three colour axes, and nearby pairs dominate."""
    images = torch.linspace(0.2, 0.8, 32).expand(1, 3, 24, 32)
    labels = F.one_hot(torch.arange(32) // width).T[None, :, None].expand(1, -1, 24, 32).float()
    assert_close_to_exact(images, labels, 0.02, 0.02, scale=1.0)


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(8, 19),
    width=st.integers(8, 19),
    classes=st.integers(2, OWN_CLASSES),
    contrast=st.sampled_from([0.0, 0.01, 1.0, 4.0, 100.0]),
    seed=st.integers(0, 99),
    masked=st.booleans(),
)
def test_close_to_exact_for_any_probabilities(
    height: int, width: int, classes: int, contrast: float, seed: int, masked: bool
) -> None:
    images = natural_images(2, height, width, seed=seed)
    soft = soft_labels(2, classes, height, width, contrast=contrast, seed=seed)
    valid = torch.rand(2, height, width, generator=torch.Generator().manual_seed(seed)) < 0.9
    valid[:, 0, 0] = True
    assert_close_to_exact(images, soft, 0.02, 0.05, scale=1.0, valid_BHW=valid if masked else None)


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    contrast=st.sampled_from([0.0, 1.0, 100.0]),
    seed=st.integers(0, 99),
)
@example(height=1, width=2, contrast=100.0, seed=1)
def test_a_pair_errs_by_little_of_the_peak(height: int, width: int, contrast: float, seed: int) -> None:
    """With few pixels errors do not average out: each pair may differ by that share of a weight of 1."""
    images = natural_images(1, height, width, seed=seed)
    soft = soft_labels(1, 3, height, width, contrast=contrast, seed=seed)
    everywhere = exact_dense_energy(torch.zeros_like(images), soft, sigma_xy=1e6, scale=1.0)  # all weights are 1
    across = everywhere - (soft * (1 - soft)).sum()
    exact = exact_dense_energy(images, soft, scale=1.0)
    error = (dense_energy(images, soft, scale=1.0) - exact).abs()
    assert error <= PAIR_ERROR * across + 1e-5 * exact + 1e-6


@settings(max_examples=10, deadline=None)
@given(
    present=st.integers(1, OWN_CLASSES - 1),
    contrast=st.sampled_from([0.0, 0.1, 1.0]),
    seed=st.integers(0, 99),
)
def test_close_to_exact_where_few_of_many_classes_are_present(present: int, contrast: float, seed: int) -> None:
    """The absent classes share the small rest of the probability, here unequally."""
    images = natural_images(1, 16, 14, seed=seed)
    scores = soft_labels(1, 80, 16, 14, contrast=contrast, seed=seed).log()
    scores[:, torch.randperm(80, generator=torch.Generator().manual_seed(seed))[:present]] += 8.0
    assert_close_to_exact(images, scores.softmax(dim=1), 0.02, 0.05, scale=1.0)


@settings(max_examples=10, deadline=None)
@given(classes=st.integers(OWN_CLASSES + 1, 60), contrast=st.sampled_from([0.0, 1.0, 100.0]), seed=st.integers(0, 99))
def test_a_shared_mean_raises_the_energy_no_more_than_promised(classes: int, contrast: float, seed: int) -> None:
    images = natural_images(1, 12, 12, seed=seed)
    soft = soft_labels(1, classes, 12, 12, contrast=contrast, seed=seed)
    least = soft.sum(dim=(0, 2, 3)).argsort()[: classes - OWN_CLASSES + 1]
    ones, same = (
        apply_affinity(255 * images[0], values, sigma_rgb=15.0, sigma_xy=100.0)
        for values in (torch.ones(1, 12, 12), soft[0])
    )
    true = (soft[0] * (ones - same)).sum()
    shared = (soft[0] * same)[least].sum()
    value = dense_energy(images, soft, scale=1.0)
    assert true - 1e-4 * true <= value <= true + shared + 1e-4 * true


@pytest.mark.parametrize("sigma", [15.0, 40.0, 250.0, 5000.0])
def test_affinity_of_colours_on_one_axis(sigma: float) -> None:
    image = torch.zeros(3, 1, 256)
    image[0, 0] = torch.arange(256)
    matrix = apply_affinity(image, torch.eye(256).view(256, 1, 256), sigma_rgb=sigma, sigma_xy=1e4)[:, 0]
    colours = torch.arange(256.0)
    exact = torch.exp(-0.5 * ((colours[:, None] - colours) / sigma).square())
    torch.testing.assert_close(matrix, exact, rtol=0.0, atol=0.025)
    torch.testing.assert_close(matrix.diagonal(), torch.ones(256), rtol=0.0, atol=1e-3)


def test_affinity_is_symmetric_and_almost_one_on_the_diagonal() -> None:
    image = 255 * natural_images(1, 6, 7)[0]
    matrix = apply_affinity(image, torch.eye(42).view(42, 6, 7), sigma_rgb=15.0, sigma_xy=20.0)
    matrix = matrix.reshape(42, 42)
    torch.testing.assert_close(matrix, matrix.T, rtol=0.0, atol=1e-5)
    assert (matrix.diagonal() - 1).abs().max() < 0.05  # the error of the spatial approximation
    assert torch.linalg.eigvalsh(matrix).min() > -1e-4


@pytest.mark.parametrize("classes", [4, OWN_CLASSES + 20])
def test_gradient_is_the_derivative_of_the_fast_energy(classes: int) -> None:
    images, probabilities = natural_images(2, 10, 12), soft_labels(2, classes, 10, 12)
    _, gradient = with_gradient(dense_energy, images, probabilities)
    direction = torch.randn(probabilities.shape, generator=torch.Generator().manual_seed(5))
    direction *= probabilities  # keeps the order of the classes by mass
    plus, minus = (dense_energy(images, probabilities + step * direction) for step in (0.1, -0.1))
    slope = ((plus - minus) / 0.2).item()  # exact for a quadratic form
    assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-3)


def test_one_class_everywhere_costs_nothing_and_two_classes_do() -> None:
    images = natural_images(1, 12, 12)
    one = torch.zeros(1, 2, 12, 12)
    one[:, 1] = 1.0
    assert dense_energy(images, one).item() == 0.0
    split = one.clone()
    split[..., :6] = split[..., :6].flip(1)
    assert dense_energy(images, split).item() > 1.0


def test_following_the_colours_costs_little() -> None:
    images = torch.full((1, 3, 12, 12), 0.2)
    images[..., 6:] = 0.8
    along = torch.zeros(1, 2, 12, 12)
    along[:, 0, :, :6] = 1.0
    along[:, 1, :, 6:] = 1.0
    across = along.transpose(2, 3)
    assert dense_energy(images, along, scale=1.0).abs() < 1e-3 * dense_energy(images, across, scale=1.0)


def test_average_over_images_of_raw_sums() -> None:
    images, probabilities = natural_images(3, 14, 10), soft_labels(3, 3, 14, 10)
    alone = [dense_energy(images[i : i + 1], probabilities[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(dense_energy(images, probabilities), torch.stack(alone).mean())


def test_padding_outside_the_region_changes_nothing() -> None:
    images, probabilities = natural_images(1, 12, 10), soft_labels(1, 3, 12, 10)
    padded_images = F.pad(images, (0, 6, 0, 4), value=0.5)
    padded = F.pad(probabilities, (0, 6, 0, 4), value=0.7)
    valid = F.pad(torch.ones(1, 12, 10, dtype=torch.bool), (0, 6, 0, 4))
    value, gradient = with_gradient(dense_energy, padded_images, padded, valid_BHW=valid)
    assert value.item() == pytest.approx(dense_energy(images, probabilities).item(), rel=3e-3)
    assert not gradient[~valid[:, None].expand_as(gradient)].any()


def test_an_empty_region_gives_zero() -> None:
    images, probabilities = natural_images(1, 8, 8), soft_labels(1, 3, 8, 8)
    value, gradient = with_gradient(
        dense_energy, images, probabilities, valid_BHW=torch.zeros(1, 8, 8, dtype=torch.bool)
    )
    assert value.item() == 0.0
    assert not gradient.any()


def test_many_channels_are_filtered_in_parts() -> None:
    image, values = 255 * natural_images(1, 9, 8)[0], torch.rand(200, 9, 8)
    together = apply_affinity(image, values, sigma_rgb=15.0, sigma_xy=10.0)
    alone = apply_affinity(image, values[150:151], sigma_rgb=15.0, sigma_xy=10.0)
    torch.testing.assert_close(together[150:151], alone, rtol=1e-4, atol=1e-4)


def test_no_operator_synchronises_the_device() -> None:
    images, probabilities = natural_images(2, 12, 10), soft_labels(2, OWN_CLASSES + 5, 12, 10)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        with_gradient(dense_energy, images, probabilities, valid_BHW=images[:, 0] > 0.1)
    names = {event.key.removeprefix("aten::") for event in recorded.key_averages()}
    assert "sort" in names
    assert not names & WAITING


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_operator_synchronises_the_gpu_and_it_agrees_with_the_cpu() -> None:
    images, probabilities = natural_images(2, 40, 50), soft_labels(2, OWN_CLASSES + 5, 40, 50)
    expected = with_gradient(dense_energy, images, probabilities)
    on_gpu = [images.cuda(), probabilities.cuda()]
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = with_gradient(dense_energy, *on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close([value.cpu() for value in found], expected, rtol=1e-3, atol=1e-3)


def test_the_same_twice() -> None:
    images, probabilities = natural_images(2, 40, 50), soft_labels(2, OWN_CLASSES + 5, 40, 50)
    first, second = (with_gradient(dense_energy, images, probabilities) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_autocast_does_not_lower_the_precision() -> None:
    images, probabilities = natural_images(1, 12, 10), soft_labels(1, 3, 12, 10).bfloat16()
    expected = dense_energy(images, probabilities.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = with_gradient(dense_energy, images, probabilities)
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(value, expected)
