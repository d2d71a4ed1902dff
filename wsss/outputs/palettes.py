"""Colours of the classes in pictures. Label maps on disk always have the colours of PASCAL VOC.

"colorblind" begins with the seven colours of Okabe and Ito (Color universal design, 2008) and goes on with the colour
that is furthest from all before it, as seen with normal vision and with each of three kinds of colour blindness. After
about a dozen classes no such set is told apart easily; contours, keys and pages that name the class under the pointer
then help more.

Shape suffixes: N colours, 3 channels.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wsss.data.masks import PALETTE
from wsss.errors import UsageError

PaletteName = Literal["voc", "colorblind"]

OKABE_ITO = ("0072b2", "e69f00", "009e73", "d55e00", "56b4e9", "cc79a7", "f0e442")
"""Without black, in an order in which the first few differ most."""

LEVELS = (0, 51, 102, 153, 204, 255)
"""Of each channel of the colours that may follow."""
LEAST_CHROMA = 30.0
"""In CIE Lab: a colour with less looks like the grey photo below it."""

VISIONS: tuple[NDArray[np.float64], ...] = (
    np.eye(3),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
)
"""From linear RGB to what is seen: normal vision, protanopia, deuteranopia, tritanopia (Machado, Oliveira, Fernandes:
A physiologically-based model for simulation of color vision deficiency, 2009, severity 1)."""

TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = TO_XYZ.sum(axis=1)
"""Linear sRGB to CIE XYZ, and the white of D65."""


def palette_named(name: str) -> PaletteName:
    """The palette of a name.

    Raises:
        UsageError: there is none.
    """
    known: tuple[PaletteName, ...] = get_args(PaletteName)
    for one in known:
        if one == name:
            return one
    raise UsageError(f"no palette '{name}'; there are {', '.join(known)}", f"--palette {known[0]}")


def palette_of(name: PaletteName) -> NDArray[np.uint8]:
    """The colour of each class index, (256, 3) RGB; 0 is the background and 255 stands for ignored pixels."""
    return PALETTE if name == "voc" else _colorblind()


def as_seen(colour_N3: NDArray[np.uint8], vision: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE Lab coordinates (N, 3) of RGB colours as a kind of vision sees them (`VISIONS`); distance is difference."""
    value_N3 = colour_N3 / 255
    linear_N3 = np.where(value_N3 <= 0.04045, value_N3 / 12.92, ((value_N3 + 0.055) / 1.055) ** 2.4)
    xyz_N3 = np.clip(linear_N3 @ vision.T, 0, 1) @ TO_XYZ.T / WHITE
    root_N3 = np.where(xyz_N3 > 0.008856, np.cbrt(xyz_N3), 7.787 * xyz_N3 + 16 / 116)
    x_N, y_N, z_N = root_N3.T
    return np.stack([116 * y_N - 16, 500 * (x_N - y_N), 200 * (y_N - z_N)], axis=1)


@cache
def _colorblind() -> NDArray[np.uint8]:
    """The palette "colorblind"; once all candidates are taken it repeats."""
    first_N3 = np.array([tuple(bytes.fromhex(colour)) for colour in OKABE_ITO], dtype=np.uint8)
    grid_N3 = np.stack(np.meshgrid(LEVELS, LEVELS, LEVELS, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.uint8)
    chroma_N = np.hypot(*as_seen(grid_N3, VISIONS[0])[:, 1:].T)
    pool_N3 = np.concatenate([first_N3, grid_N3[chroma_N >= LEAST_CHROMA]])
    seen = [as_seen(pool_N3, vision) for vision in VISIONS]
    order: list[int] = []
    nearest_N = np.full(len(pool_N3), np.inf)
    while len(order) < len(pool_N3):
        chosen = len(order) if len(order) < len(first_N3) else int(nearest_N.argmax())
        order.append(chosen)
        for lab_N3 in seen:
            nearest_N = np.minimum(nearest_N, np.linalg.norm(lab_N3 - lab_N3[chosen], axis=1))
        nearest_N[order] = -1.0
    palette_N3 = np.zeros((256, 3), dtype=np.uint8)
    palette_N3[1:255] = np.resize(pool_N3[order], (254, 3))
    palette_N3[255] = PALETTE[255]
    return palette_N3
