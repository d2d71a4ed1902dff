"""Small pictures in the page: photos as WebP, label maps and class maps as packed bytes that the page colours.

A packed map is the base64 text of a zlib stream: H and W as 16 bits each, little-endian, then planes of H x W bytes.
The first holds class indices; a class map has a second one, its scores in 255ths. Small palette PNGs of label maps are
a seventh larger, and a browser may change their values.

Shape suffixes: H x W pixels of a file, h x w of a small picture or of the grid of scores, C present classes.
"""

from __future__ import annotations

import base64
import io
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss.inference.evaluate import strongest_class
from wsss.outputs.pictures import label_at

QUALITY = 50
"""Of WebP, 0 to 100."""
SCORE_STEP = 8
"""Scores are rounded down to multiples of this, in 255ths: they take less room, and the eye sees no difference."""


def small_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(h, w) of a picture of (H, W) pixels whose longest side becomes at most ``side``."""
    ratio = min(1.0, side / max(size))
    return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))


def photo_text(image_HW3: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """A photo as WebP of ``size`` (h, w), in base64."""
    small_hw3 = cv2.resize(image_HW3, size[::-1], interpolation=cv2.INTER_AREA)
    encoded = io.BytesIO()
    Image.fromarray(np.asarray(small_hw3, dtype=np.uint8)).save(encoded, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(encoded.getvalue()).decode("ascii")


def label_text(label_HW: NDArray[np.uint8], side: int, index_256: NDArray[np.uint8]) -> str:
    """A label map, packed.

    Args:
        label_HW: class indices, 255 ignore.
        side: its longest side becomes at most this.
        index_256: class index in the page of each class index.
    """
    small_hw = label_at(label_HW, small_size((label_HW.shape[0], label_HW.shape[1]), side))
    return _packed(index_256[small_hw])


def scores_text(scores_Chw: NDArray[np.float32], classes_C: NDArray[np.int64], index_256: NDArray[np.uint8]) -> str:
    """A class map, packed: the strongest class of each place of the grid and its score.

    Args:
        scores_Chw: class scores in [0, 1] of the present classes.
        classes_C: their indices into the class names, from 0.
        index_256: see ``label_text``.
    """
    best_hw, class_hw = strongest_class(scores_Chw, classes_C, (scores_Chw.shape[1], scores_Chw.shape[2]))
    level_hw = np.rint(255 * best_hw.clip(0, 1)).astype(np.uint8) // SCORE_STEP * SCORE_STEP
    return _packed(index_256[class_hw], level_hw.astype(np.uint8))


def unpacked(text: str) -> NDArray[np.uint8]:
    """The class indices (h, w) of a packed map."""
    plain = zlib.decompress(base64.b64decode(text))
    height, width = np.frombuffer(plain, "<u2", 2).tolist()
    return np.frombuffer(plain, np.uint8, height * width, offset=4).reshape(height, width)


def _packed(*planes_hw: NDArray[np.uint8]) -> str:
    head = np.array(planes_hw[0].shape, "<u2").tobytes()
    return base64.b64encode(zlib.compress(head + b"".join(plane.tobytes() for plane in planes_hw), 9)).decode("ascii")
