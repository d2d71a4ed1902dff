"""Common corruptions of photos, and two views of them without texture.

The strengths at severities 1 to 5 are those of ImageNet-C (Hendrycks and Dietterich, arXiv 1903.12261,
https://github.com/hendrycks/robustness, Copyright Dan Hendrycks, Apache License 2.0); the functions are written anew
(NOTICE). They were chosen for images of 224 x 224 pixels, so they are applied at the size that the network reads. Fog
and motion blur follow the same constants with a noise field and a kernel of this module. Frost needs photographs and is
left out.

Shape suffixes: H x W pixels, 3 RGB.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.float32]
"""(H, W, 3) RGB in [0, 1]."""

SEVERITIES = (1, 3, 5)
"""Those that are measured, of five."""

COLOURS = 8
"""Colours that the quantised view keeps of an image."""


def random_of(*parts: object) -> np.random.Generator:
    """Random numbers that follow from an image's name and what they are for, and from nothing else."""
    digest = hashlib.sha256("\n".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def gaussian_noise(image_HW3: Picture, sigma: float, random: np.random.Generator) -> Picture:
    """Add noise of a standard deviation."""
    return image_HW3 + random.normal(size=image_HW3.shape, scale=sigma).astype(np.float32)


def shot_noise(image_HW3: Picture, rate: float, random: np.random.Generator) -> Picture:
    """Draw each value from a Poisson distribution: ``rate`` photons at white."""
    return (random.poisson(image_HW3 * rate) / rate).astype(np.float32)


def impulse_noise(image_HW3: Picture, share: float, random: np.random.Generator) -> Picture:
    """Set a share of the values to 0 or 1."""
    draw_HW3 = random.random(image_HW3.shape)
    salted_HW3 = np.where(draw_HW3 < share / 2, 0.0, np.where(draw_HW3 < share, 1.0, image_HW3))
    return salted_HW3.astype(np.float32)


def gaussian_blur(image_HW3: Picture, sigma: float, random: np.random.Generator) -> Picture:
    """Blur by a Gaussian of ``sigma`` pixels."""
    return np.asarray(cv2.GaussianBlur(image_HW3, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def defocus_blur(image_HW3: Picture, radius: float, random: np.random.Generator) -> Picture:
    """Blur by a disk of ``radius`` pixels."""
    reach = np.arange(-math.ceil(radius), math.ceil(radius) + 1)
    disk = (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.float32)
    return _filtered(image_HW3, disk)


def motion_blur(image_HW3: Picture, reach: tuple[int, float], random: np.random.Generator) -> Picture:
    """Smear along a line, at an angle of up to 45 degrees from the horizontal.

    Args:
        image_HW3: the image.
        reach: (radius, sigma): the pixel at distance i, at most twice the radius, has the weight of a Gaussian there.
        random: draws the angle.
    """
    radius, sigma = reach
    angle = math.radians(random.uniform(-45, 45))
    kernel = np.zeros((4 * radius + 1, 4 * radius + 1), np.float32)
    for step in range(2 * radius + 1):
        row, column = round(step * math.sin(angle)), round(step * math.cos(angle))
        kernel[2 * radius + row, 2 * radius + column] += math.exp(-((step / sigma) ** 2) / 2)
    return _filtered(image_HW3, kernel)


def contrast(image_HW3: Picture, factor: float, random: np.random.Generator) -> Picture:
    """Shrink the distance of each channel from its mean to ``factor`` of itself."""
    mean_3 = image_HW3.mean(axis=(0, 1))
    return np.asarray((image_HW3 - mean_3) * factor + mean_3, np.float32)


def brightness(image_HW3: Picture, more: float, random: np.random.Generator) -> Picture:
    """Raise the V of HSV."""
    hsv_HW3 = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2HSV)
    hsv_HW3[..., 2] = np.clip(hsv_HW3[..., 2] + more, 0, 1)
    return np.asarray(cv2.cvtColor(hsv_HW3, cv2.COLOR_HSV2RGB), np.float32)


def jpeg(image_HW3: Picture, quality: int, random: np.random.Generator) -> Picture:
    """Encode as JPEG of quality 0..100, and decode."""
    bgr_HW3 = cv2.cvtColor(_bytes(image_HW3), cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", bgr_HW3, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded_HW3 = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    return _floats(cv2.cvtColor(decoded_HW3, cv2.COLOR_BGR2RGB))


def pixelate(image_HW3: Picture, share: float, random: np.random.Generator) -> Picture:
    """Reduce both sides to a share of themselves, and repeat pixels."""
    height, width = image_HW3.shape[:2]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    small_hw3 = cv2.resize(image_HW3, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small_hw3, (width, height), interpolation=cv2.INTER_NEAREST), np.float32)


def fog(image_HW3: Picture, amount: tuple[float, float], random: np.random.Generator) -> Picture:
    """Add a field of noise and bring the brightest value back to what it was.

    Args:
        image_HW3: the image.
        amount: (strength, decay): octaves of noise are added, each finer one ``decay`` times weaker.
        random: draws the field.
    """
    strength, decay = amount
    height, width = image_HW3.shape[:2]
    field_HW = np.zeros((height, width), np.float32)
    octaves = max(1, math.ceil(math.log2(max(height, width))))
    for octave in range(octaves):
        points = 2 + 2**octave
        grid = random.random((points, points)).astype(np.float32)
        octave_HW: Any = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        field_HW += octave_HW / decay**octave
    field_HW -= field_HW.min()
    field_HW /= max(float(field_HW.max()), 1e-6)
    brightest = float(image_HW3.max())
    foggy_HW3 = (image_HW3 + strength * field_HW[..., None]) * brightest / (brightest + strength)
    return np.asarray(foggy_HW3, np.float32)


def edges(image_HW3: Picture, reach: float, random: np.random.Generator) -> Picture:
    """Without texture: smooth over ``reach`` pixels but for edges (Gastal and Oliveira's filter in OpenCV)."""
    smooth_HW3 = cv2.edgePreservingFilter(_bytes(image_HW3), flags=cv2.RECURS_FILTER, sigma_s=reach, sigma_r=0.4)
    return _floats(smooth_HW3)


def quantised(image_HW3: Picture, colours: int, random: np.random.Generator) -> Picture:
    """Without shades: the colours of a median cut, undithered."""
    palette = Image.fromarray(_bytes(image_HW3)).quantize(
        colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    return _floats(np.asarray(palette.convert("RGB")))


@dataclass(frozen=True, slots=True)
class Corruption:
    """A function of images and its strength at each severity, from 1."""

    apply: Callable[[Picture, Any, np.random.Generator], Picture]
    strengths: tuple[Any, ...]


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian noise": Corruption(gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot noise": Corruption(shot_noise, (60, 25, 12, 5, 3)),
    "impulse noise": Corruption(impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian blur": Corruption(gaussian_blur, (1, 2, 3, 4, 6)),
    "defocus blur": Corruption(defocus_blur, (3, 4, 6, 8, 10)),
    "motion blur": Corruption(motion_blur, ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))),
    "fog": Corruption(fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
    "contrast": Corruption(contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "brightness": Corruption(brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "jpeg": Corruption(jpeg, (25, 18, 15, 10, 7)),
    "pixelate": Corruption(pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
}
"""By name; strengths are sigma, photons, share, pixels, pixels, (radius, sigma), (strength, decay), factor, V, quality
and share."""

TEXTURE_FREE: dict[str, Corruption] = {
    "edges alone": Corruption(edges, (60.0,)),
    f"{COLOURS} colours": Corruption(quantised, (COLOURS,)),
}
"""Views whose shapes are those of the photo; each has one severity."""


def corrupt(image_HW3: Picture, kind: str, severity: int, name: str) -> Picture:
    """A corrupted copy, clipped to [0, 1].

    Args:
        image_HW3: RGB in [0, 1], at the size that the network reads.
        kind: a key of ``CORRUPTIONS`` or ``TEXTURE_FREE``.
        severity: from 1 to the number of its strengths; 0 returns the image.
        name: of the image: the random numbers follow from it.
    """
    if severity == 0:
        return image_HW3
    corruption = (CORRUPTIONS | TEXTURE_FREE)[kind]
    changed_HW3 = corruption.apply(image_HW3, corruption.strengths[severity - 1], random_of(name, kind))
    return np.clip(changed_HW3, 0, 1).astype(np.float32, copy=False)


def _filtered(image_HW3: Picture, kernel: NDArray[np.float32]) -> Picture:
    kernel = kernel / kernel.sum()
    return np.asarray(cv2.filter2D(image_HW3, -1, kernel, borderType=cv2.BORDER_REFLECT), np.float32)


def _bytes(image_HW3: Picture) -> NDArray[np.uint8]:
    return np.asarray(np.rint(255 * image_HW3), np.uint8)


def _floats(image_HW3: NDArray[Any]) -> Picture:
    return np.asarray(image_HW3 / 255, np.float32)
