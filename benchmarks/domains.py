"""Data of other kinds than photos of animals: generated sets with exact masks, the defaults on each, and their ceiling.

    python benchmarks/domains.py OUT --weights FILE --kinds small,thin,single,tissue

- ``small``: dozens of cells of 8 to 20 px, round, long or star-shaped, on one ground; an image holds one or two kinds.
- ``thin``: cracks and wires, 2 to 4 px wide, beside drawn edges that are neither.
- ``single``: one class, a striped ball; half of the images hold none, only plain balls.
- ``tissue``: three tissues that differ by texture alone, in regions with soft borders on pale ground, as histology.

Each set has 200 training images with tags and 100 of ``val``. The row of a kind is tag mAP and mIoU of ``val`` by the
defaults with DeiT-Tiny, and its ratio to the ceiling: the same network on true masks in as many steps. Finished rows
are kept and unfinished trainings are resumed. ``--make-only`` writes the sets alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from few_segmentation import trained
from measuring import CPU, machine
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from wsss.config import resolve
from wsss.data.dataset import open_data
from wsss.data.masks import write_mask
from wsss.data.painting import background, fill, photograph
from wsss.evaluation.tagging import tag_map
from wsss.inference.score import score_split, tag_scores

SIDE = 224
"""Height and width of the images, pixels."""
TRAIN, VAL = 200, 100

Floats = NDArray[np.float32]
Painted = tuple[Floats, NDArray[np.uint8]]
"""An image (H, W, 3) in about [0, 1] and its class indices (H, W), 0 is background."""


def cover(image_HW3: Floats, mask_HW: NDArray[np.uint8], weight_HW: Floats, colour: Floats, label: int) -> None:
    """Paint a colour, (3,) or (H, W, 3), where a weight in [0, 1] says so, and its class where it is over a half."""
    image_HW3 += weight_HW[..., None] * (colour - image_HW3)
    mask_HW[weight_HW > 0.5] = label


def outline(random: Generator, kind: int, radius: float) -> NDArray[np.float64]:
    """Points (x, y) around a cell at (0, 0): round (0), long (1) or a star (2)."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    length = radius * (1 + 0.45 * np.cos(5 * angle)) if kind == 2 else np.full(40, radius)
    points = np.stack([length * np.cos(angle), length * np.sin(angle) * (0.35 if kind == 1 else 1.0)], 1)
    turn = random.uniform(0, np.pi)
    turned: NDArray[np.float64] = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return turned


def small(random: Generator) -> Painted:
    """Many small cells of one or two kinds; colours say nothing."""
    image_HW3, mask_HW = background(random, SIDE, SIDE), np.zeros((SIDE, SIDE), np.uint8)
    kinds = random.permutation(3)[: random.integers(1, 3)]
    for _ in range(int(random.integers(20, 45))):
        kind, colour = int(random.choice(kinds)), random.uniform(0.1, 1.0, 3).astype(np.float32)
        points = outline(random, kind, random.uniform(5, 10)) + random.uniform(8, SIDE - 8, 2)
        cover(image_HW3, mask_HW, fill(points, SIDE, SIDE), colour, kind + 1)
    return image_HW3, mask_HW


def walk(random: Generator, wild: float) -> NDArray[np.float64]:
    """Points (x, y) of a line across the image, that turns by about ``wild`` radians at each step of 4 px."""
    headings = random.uniform(0, 2 * np.pi) + np.cumsum(random.normal(0, wild, 90))
    steps = 4 * np.stack([np.cos(headings), np.sin(headings)], 1)
    points: NDArray[np.float64] = random.uniform(0.25 * SIDE, 0.75 * SIDE, 2) + np.cumsum(steps, 0)
    return points


def line(points: NDArray[np.float64], width: int) -> Floats:
    """Weight in [0, 1] of a line through points."""
    drawn = np.zeros((SIDE, SIDE), np.uint8)
    cv2.polylines(drawn, [np.round(points).astype(np.int32)], False, 255, width, cv2.LINE_AA)
    return drawn.astype(np.float32) / np.float32(255)


def thin(random: Generator) -> Painted:
    """Dark ragged cracks (1) and bright smooth wires (2), one kind or both; edges of two flat sides are neither."""
    image_HW3, mask_HW = background(random, SIDE, SIDE), np.zeros((SIDE, SIDE), np.uint8)
    corner = random.uniform(0, SIDE, (3, 2))
    weight_HW = 0.5 * fill(corner, SIDE, SIDE)
    cover(image_HW3, np.empty_like(mask_HW), weight_HW, random.uniform(0.2, 0.8, 3).astype(np.float32), 0)
    for label in (random.permutation(2) + 1)[: random.integers(1, 3)]:
        for _ in range(int(random.integers(1, 4))):
            points = walk(random, 0.7 if label == 1 else 0.05)
            colour = random.uniform(*((0.0, 0.15) if label == 1 else (0.75, 1.0)), 3).astype(np.float32)
            cover(image_HW3, mask_HW, line(points, int(random.integers(2, 5))), colour, int(label))
    return image_HW3, mask_HW


def single(random: Generator) -> Painted:
    """Up to three plain balls, and in half of the images one or two striped ones (1)."""
    image_HW3, mask_HW = background(random, SIDE, SIDE), np.zeros((SIDE, SIDE), np.uint8)
    y_H1, x_1W = np.ogrid[:SIDE, :SIDE]
    labels = [0] * int(random.integers(1, 4)) + [1] * int(random.integers(1, 3) if random.random() < 0.5 else 0)
    for label in random.permutation(labels):
        points = outline(random, 0, random.uniform(15, 45)) + random.uniform(20, SIDE - 20, 2)
        first, second = random.uniform(0.1, 1.0, (2, 3)).astype(np.float32)
        turn, period = random.uniform(0, np.pi), random.uniform(7, 12)
        stripes_HW = np.sin((x_1W * np.cos(turn) + y_H1 * np.sin(turn)) * (2 * np.pi / period)) > 0
        colour = np.where(stripes_HW[..., None], first, second) if label else first
        cover(image_HW3, mask_HW, fill(points, SIDE, SIDE), colour.astype(np.float32), int(label))
    return image_HW3, mask_HW


def dots(random: Generator, count: int, radius: float) -> Floats:
    """Weight in [0, 1] of soft dots at random places: nuclei."""
    drawn = np.zeros((SIDE, SIDE), np.float32)
    for x, y in random.integers(0, SIDE, (count, 2)):
        cv2.circle(drawn, (int(x), int(y)), max(1, round(radius * random.uniform(0.7, 1.3))), 1.0, -1)
    return cv2.GaussianBlur(drawn, (0, 0), 0.8).astype(np.float32)


def texture(random: Generator, label: int) -> Floats:
    """Weight in [0, 1] of what is dark in a tissue: dense small nuclei (1), rings around holes (2), fibres (3)."""
    if label == 1:
        return dots(random, 1400, 2.0)
    if label == 2:
        drawn = np.zeros((SIDE, SIDE), np.float32)
        for x, y in random.integers(0, SIDE, (110, 2)):
            cv2.circle(drawn, (int(x), int(y)), int(random.integers(6, 11)), 1.0, 2)
        return cv2.GaussianBlur(drawn, (0, 0), 0.8).astype(np.float32)
    noise = random.random((SIDE, SIDE), np.float32)
    streaks = cv2.GaussianBlur(noise, (0, 0), sigmaX=12, sigmaY=1.2)
    dark: Floats = np.clip((streaks - streaks.mean()) / (2 * streaks.std()) + 0.5, 0, 1).astype(np.float32)
    return dark


def tissue(random: Generator) -> Painted:
    """One or two regions of tissues in the same two stains, which differ by texture alone; other nuclei lie outside."""
    image_HW3 = np.full((SIDE, SIDE, 3), (0.93, 0.9, 0.93), np.float32)
    image_HW3 -= 0.35 * dots(random, 40, 2.0)[..., None] * np.array((0.4, 0.5, 0.2), np.float32)
    mask_HW = np.zeros((SIDE, SIDE), np.uint8)
    pink, violet = np.array(((0.9, 0.66, 0.8), (0.45, 0.3, 0.6)), np.float32) + random.normal(0, 0.03, 3)
    for label in (random.permutation(3) + 1)[: random.integers(1, 3)]:
        angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        radius = random.uniform(45, 80) * (1 + 0.25 * np.cos(np.outer(angle, (2, 3)) + random.uniform(0, 6, 2)).mean(1))
        centre = random.uniform(0.2 * SIDE, 0.8 * SIDE, 2)
        points = centre + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        dark_HW = texture(random, int(label))[..., None]
        colour_HW3 = (pink + dark_HW * (violet - pink)).astype(np.float32)
        cover(image_HW3, mask_HW, fill(points, SIDE, SIDE), colour_HW3, int(label))
    return image_HW3, mask_HW


KINDS: dict[str, tuple[Callable[[Generator], Painted], tuple[str, ...]]] = {
    "small": (small, ("round", "long", "star")),
    "thin": (thin, ("crack", "wire")),
    "single": (single, ("striped",)),
    "tissue": (tissue, ("nuclei", "glands", "fibres")),
}
"""How each kind is painted, and its classes in the order of their indices."""


def write_set(folder: Path, kind: str) -> Path:
    """Write a data folder of one kind, ``tags.csv`` last; one that is complete stays."""
    if (folder / "tags.csv").is_file():
        return folder
    paint, classes = KINDS[kind]
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows = ["image,labels,split"]
    for split, count in (("train", TRAIN), ("val", VAL)):
        for number in range(count):
            name = f"{split}_{number:04d}"
            random = np.random.default_rng([number, split == "val", *kind.encode()])
            image_HW3, mask_HW = paint(random)
            Image.fromarray(photograph(random, image_HW3)).save(folder / "images" / f"{name}.jpg", quality=92)
            write_mask(folder / "masks" / f"{name}.png", mask_HW)
            tags = " ".join(classes[index - 1] for index in np.unique(mask_HW) if index)
            rows.append(f"{name}.jpg,{tags},{split}")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    (folder / "tags.csv").write_text("\n".join(rows) + "\n")
    return folder


def measured(runs: Path, folder: Path, weights: Path | None, rounds: int, seed: int) -> dict[str, Any]:
    """Tag mAP and mIoU of ``val`` by the defaults, at one scale, without flip, and the ceiling."""
    flags = {
        "data.root": folder,
        "data.val_split": "val",
        "run.workers": 0,
        "run.seed": seed,
        "segment.rounds": rounds,
        "model.backbone": "deit_tiny_patch16_224",
        "model.weights": str(weights) if weights else "pretrained",
    }
    flags |= {"classify.validate_every": 1000, "segment.validate_every": 1000}
    config, val = resolve(None, (), flags), open_data(folder, split="val")
    classifier = trained(runs / "cls", flags, None).eval()
    found: dict[str, Any] = {"kind": folder.name, "rounds": rounds, "seed": seed}
    found |= {"tag_map": tag_map(*tag_scores(classifier, val, config, CPU))}
    for name, run, masks in (("mean_iou", "seg", False), ("ceiling", "ceiling", True)):
        network = trained(runs / run, flags, runs / "cls", true_masks=masks)
        found[name] = score_split(network.eval(), val, config, CPU).mean_iou()
    return found | {"ratio": found["mean_iou"] / found["ceiling"]}


def main(
    out: Path,
    weights: Annotated[Path | None, typer.Option()] = None,
    kinds: str = ",".join(KINDS),
    rounds: int = 2,
    seed: int = 0,
    make_only: bool = False,
) -> None:
    """Print one row of JSON a kind, and keep it in OUT/rows."""
    print(machine(CPU), flush=True)
    (out / "rows").mkdir(parents=True, exist_ok=True)
    for kind in kinds.split(","):
        folder = write_set(out / "data" / kind, kind)
        row = out / "rows" / f"{kind}-{rounds}-{seed}.json"
        if not make_only and not row.is_file():
            row.write_text(
                json.dumps(measured(out / "runs" / f"{kind}-{rounds}-{seed}", folder, weights, rounds, seed))
            )
        if row.is_file():
            print(row.read_text(), flush=True)


if __name__ == "__main__":
    typer.run(main)
