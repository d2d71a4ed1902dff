"""Sets of painted scenes for ``wsss demo`` and the tests: photo-like images whose exact masks are known.

A class map finds the textured cap that shows the class of an animal, and refinement has to spread it over the body
(``wsss.data.painting``). Stones belong to no class. Scene ``index`` of ``seed`` does not depend on how many scenes are
made.

Shape suffixes: H rows, W columns, 3 RGB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from wsss.data.masks import write_mask
from wsss.data.painting import TEXTURES, Canvas, background, body_colour, photograph, place, shade, wear
from wsss.errors import UsageError
from wsss.files import write_whole

CLASS_NAME = re.compile(r"[\w-]+")
SMALLEST_SIDE = 32
VAL_OFFSET = 1_000_000
"""Index of the first validation scene; training scenes have smaller indices."""
PLACEMENT_TRIES = 12
MORE_CHANCE = 0.35
"""Probability of each class beyond ``min_classes`` that a scene may hold."""
JPEG_QUALITY = 95


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneSettings:
    """What is painted.

    Attributes:
        classes: names, at most one a texture.
        sizes: (H, W) in pixels; each scene draws one.
        min_classes: classes placed in a scene, at least; 0 allows scenes with stones alone.
        max_classes: classes placed in a scene, at most.
        twin_chance: chance that a class is placed twice.
        max_stones: stones in a scene, at most.

    Raises:
        UsageError: nothing can be painted with these values.
    """

    classes: tuple[str, ...] = ("bee", "ladybird", "peacock", "harlequin")
    sizes: tuple[tuple[int, int], ...] = ((96, 96), (96, 128))
    min_classes: int = 1
    max_classes: int = 3
    twin_chance: float = 0.15
    max_stones: int = 2

    def __post_init__(self) -> None:
        if not 1 <= len(self.classes) <= len(TEXTURES):
            raise UsageError(
                f"classes: {len(self.classes)} names, but scenes hold 1 to {len(TEXTURES)} classes",
                f"name 1 to {len(TEXTURES)} classes",
            )
        if len(set(self.classes)) < len(self.classes) or not all(map(CLASS_NAME.fullmatch, self.classes)):
            raise UsageError(
                f"classes: {self.classes}, but names must differ and be single words",
                "name each class with letters, digits, '_' and '-'",
            )
        if not self.sizes or min(min(size) for size in self.sizes) < SMALLEST_SIDE:
            raise UsageError(
                f"sizes: {self.sizes}, but every side must be at least {SMALLEST_SIDE} pixels",
                f"ask for (height, width) pairs of at least {SMALLEST_SIDE}",
            )
        if not 0 <= self.min_classes <= self.max_classes or self.max_classes == 0:
            raise UsageError(
                f"min_classes {self.min_classes} and max_classes {self.max_classes} leave nothing to draw",
                "choose 0 <= min_classes <= max_classes with max_classes at least 1",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One image with its mask and tags.

    Attributes:
        image_HW3: uint8 RGB.
        mask_HW: uint8 class indices, 0 background (stones too), 1..K; never 255.
        telling_HW: bool, the visible pixels of the textures of classes.
        tags: sorted classes from 0, exactly those of the mask.
    """

    image_HW3: NDArray[np.uint8]
    mask_HW: NDArray[np.uint8]
    telling_HW: NDArray[np.bool_]
    tags: tuple[int, ...]


def _cast(rng: Generator, settings: SceneSettings) -> list[int]:
    """Class indices to place, stones (0) among them, in painting order."""
    highest = min(settings.max_classes, len(settings.classes))
    fewest = min(settings.min_classes, highest)
    count = fewest + int(rng.binomial(highest - fewest, MORE_CHANCE))
    labels = [int(k) + 1 for k in rng.permutation(len(settings.classes))[:count]]
    labels += [label for label in labels if rng.random() < settings.twin_chance]
    labels += [0] * int(rng.integers(settings.max_stones + 1))
    return [labels[k] for k in rng.permutation(len(labels))]


def make_scene(index: int, seed: int, settings: SceneSettings) -> Scene:
    """Paint scene ``index`` of ``seed``; a body for which no place is found is left out."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(index,))))
    height, width = settings.sizes[rng.integers(len(settings.sizes))]
    canvas = Canvas(background(rng, height, width))
    for label in _cast(rng, settings):
        tries = (place(rng, label, height, width) for _ in range(PLACEMENT_TRIES))
        body = next((body for body in tries if canvas.accepts(body)), None)
        if body is not None:
            skin_3 = body_colour(rng, label)
            canvas.paint(body, wear(rng, body, skin_3) * shade(rng, body)[..., None])
    mask_HW = canvas.mask()
    tags = tuple(int(label) - 1 for label in np.unique(mask_HW) if label > 0)
    image_HW3 = photograph(rng, canvas.image_HW3)
    return Scene(image_HW3=image_HW3, mask_HW=mask_HW, telling_HW=canvas.telling_HW, tags=tags)


def write_scenes(root: Path, *, train: int, val: int, seed: int, settings: SceneSettings) -> None:
    """Write scenes as a data folder: ``images/``, ``masks/``, ``classes.txt`` and, last, ``tags.csv``.

    Args:
        root: the folder; scenes that an earlier call left in it are replaced.
        train: number of scenes of the split "train".
        val: number of scenes of the split "val"; never the same as a training scene.
        seed: of all the scenes.
        settings: what is painted.
    """
    (root / "images").mkdir(parents=True, exist_ok=True)
    _remove_scenes(root)
    rows = ["image,labels,split"]
    for split, count, first in (("train", train, 0), ("val", val, VAL_OFFSET)):
        for k in range(count):
            scene = make_scene(first + k, seed, settings)
            name = f"{split}_{k:05d}"
            write_whole(root / "images" / f"{name}.jpg", _jpeg(scene.image_HW3))
            write_mask(root / "masks" / f"{name}.png", scene.mask_HW)
            rows.append(f"{name}.jpg,{';'.join(settings.classes[tag] for tag in scene.tags)},{split}")
    write_whole(root / "classes.txt", "".join(f"{name}\n" for name in settings.classes))
    write_whole(root / "tags.csv", "\n".join(rows) + "\n")


def _remove_scenes(root: Path) -> None:
    """Remove an earlier set, its table first, so that a half-written set is not taken for a data set."""
    (root / "tags.csv").unlink(missing_ok=True)
    for split in ("train", "val"):
        for path in (*root.glob(f"images/{split}_*.jpg"), *root.glob(f"masks/{split}_*.png")):
            path.unlink()


def _jpeg(image_HW3: NDArray[np.uint8]) -> bytes:
    """Encode an RGB image."""
    encoded = cv2.imencode(".jpg", image_HW3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    return encoded.tobytes()
