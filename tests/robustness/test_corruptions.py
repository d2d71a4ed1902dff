"""Corruptions: strength 0, constants, statistics by hand, seeds that follow from names."""

from __future__ import annotations

import numpy as np
import pytest

from wsss.robustness.corruptions import (
    COLOURS,
    CORRUPTIONS,
    SEVERITIES,
    TEXTURE_FREE,
    Picture,
    brightness,
    contrast,
    corrupt,
    defocus_blur,
    gaussian_blur,
    gaussian_noise,
    impulse_noise,
    motion_blur,
    pixelate,
    quantised,
    random_of,
    shot_noise,
)

RANDOM = random_of("test")
KINDS = [*CORRUPTIONS, *TEXTURE_FREE]


def picture(height: int = 48, width: int = 80) -> Picture:
    """Smooth colours with a square, not square itself."""
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    image_HW3 = np.stack([rows, columns, 1 - rows], axis=2).astype(np.float32)
    image_HW3[10:20, 30:50] = (0.9, 0.1, 0.2)
    return image_HW3


def grey(value: float = 0.5, side: int = 256) -> Picture:
    return np.full((side, side, 3), value, np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_severity_0_returns_the_bits_and_others_an_image(kind: str) -> None:
    image_HW3 = picture()
    before = image_HW3.copy()
    assert corrupt(image_HW3, kind, 0, "a") is image_HW3
    worse = [
        float(np.abs(corrupt(image_HW3, kind, severity, "a") - image_HW3).mean())
        for severity in (SEVERITIES if kind in CORRUPTIONS else (1,))
    ]
    assert worse == sorted(worse)
    assert worse[0] > 0
    changed_HW3 = corrupt(image_HW3, kind, 1, "a")
    assert changed_HW3.shape == image_HW3.shape
    assert changed_HW3.dtype == np.float32
    assert changed_HW3.min() >= 0
    assert changed_HW3.max() <= 1
    assert np.array_equal(image_HW3, before)


def test_random_numbers_follow_from_the_name() -> None:
    image_HW3 = picture()
    one, again, other = (corrupt(image_HW3, "gaussian noise", 1, name) for name in ("a", "a", "b"))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("sigma", [0.08, 0.18])
def test_gaussian_noise_has_its_deviation(sigma: float) -> None:
    added_HW3 = gaussian_noise(grey(), sigma, RANDOM) - grey()
    assert added_HW3.std() == pytest.approx(sigma, rel=0.02)
    assert added_HW3.mean() == pytest.approx(0, abs=0.02 * sigma)


def test_shot_noise_has_the_variance_of_photons() -> None:
    """At rate r a value x has mean x and variance x / r."""
    noisy_HW3 = shot_noise(grey(0.4), 25, RANDOM)
    assert noisy_HW3.mean() == pytest.approx(0.4, rel=0.02)
    assert noisy_HW3.var() == pytest.approx(0.4 / 25, rel=0.02)


def test_impulse_noise_sets_its_share() -> None:
    noisy_HW3 = impulse_noise(grey(), 0.1, RANDOM)
    assert (noisy_HW3 == 0).mean() == pytest.approx(0.05, rel=0.05)
    assert (noisy_HW3 == 1).mean() == pytest.approx(0.05, rel=0.05)
    assert (noisy_HW3 == 0.5).mean() == pytest.approx(0.9, rel=0.01)


def test_blurs_of_a_point() -> None:
    """A Gaussian has its variance, a disk of radius 1 five equal pixels, and nothing is lost."""
    point_HW3 = np.zeros((41, 41, 3), np.float32)
    point_HW3[20, 20] = 1
    blurred_HW = gaussian_blur(point_HW3, 2, RANDOM)[..., 0]
    offsets = np.arange(41) - 20
    assert blurred_HW.sum() == pytest.approx(1, rel=1e-4)
    assert (blurred_HW.sum(axis=0) * offsets**2).sum() == pytest.approx(4, rel=0.02)
    disk_HW = defocus_blur(point_HW3, 1, RANDOM)[..., 0]
    assert disk_HW[20, 18:23].tolist() == pytest.approx([0, 0.2, 0.2, 0.2, 0])
    assert disk_HW[18:23, 20].tolist() == pytest.approx([0, 0.2, 0.2, 0.2, 0])
    smeared_HW = motion_blur(point_HW3, (3, 2), RANDOM)[..., 0]
    assert smeared_HW.sum() == pytest.approx(1, rel=1e-4)
    assert (smeared_HW > 1e-6).sum() == 7
    assert smeared_HW.argmax() == 20 * 41 + 20


def test_contrast_and_brightness_by_hand() -> None:
    image_HW3 = np.array([[[0.2, 0.5, 0.0], [0.6, 0.5, 0.4]]], np.float32)
    assert contrast(image_HW3, 0.5, RANDOM).flatten().tolist() == pytest.approx([0.3, 0.5, 0.1, 0.5, 0.5, 0.3])
    assert brightness(grey(0.5, 2), 0.2, RANDOM).flatten().tolist() == pytest.approx([0.7] * 12, abs=1e-5)
    assert brightness(grey(0.9, 2), 0.2, RANDOM).max() == pytest.approx(1)


def test_pixelate_repeats_pixels() -> None:
    blocks_HW3 = pixelate(picture(), 0.25, RANDOM)
    assert np.array_equal(blocks_HW3[::4, ::4].repeat(4, 0).repeat(4, 1), blocks_HW3)


def test_quantised_keeps_few_colours() -> None:
    colours = np.unique(quantised(picture(), COLOURS, RANDOM).reshape(-1, 3), axis=0)
    assert 2 <= len(colours) <= COLOURS
