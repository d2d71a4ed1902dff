"""Images a second of the dense CRF: all classes, present classes, present classes in processes.

    python benchmarks/crf.py
    python benchmarks/crf.py --height 60 --width 80 --images 3 --rounds 1

The baseline is pydensecrf as it is usually called: over every class, one image after the other. Images are synthetic:
smooth colours, an object of its own colour for each present class, noise; VOC has 1.56 classes an image. It is checked
first that both give the same labels on 99.9% of the pixels, and that the processes give the same on all pixels.

Shape suffixes: K classes, C = K + 1 with the background first, H x W pixels, 3 channels RGB.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from measuring import CPU, Times, machine, ratio_cell, table, take_turns
from numpy.typing import NDArray

from wsss.config import CrfSection
from wsss.labels.crf import Crf, crf_probabilities, crf_processes, require_crf
from wsss.labels.crf_label import crf_label
from wsss.pool import Job, Pool

TAGS = (1, 1, 2, 1, 1, 3, 1, 2, 2)
"""Present classes of each image: 14 in 9 images, 1.56 an image."""

AGREEMENT = 0.999
NOISE = 6.0
"""Standard deviation of the noise, 8-bit levels."""

ALL, PRESENT = "pydensecrf, all classes", "present classes"
SETTINGS = CrfSection()


@dataclass(frozen=True, slots=True)
class Scene:
    """A synthetic image, class scores such as PAMR gives, and the image-level labels."""

    image_HW3: NDArray[np.uint8]
    scores_CHW: NDArray[np.float32]
    present_K: NDArray[np.bool_]

    @classmethod
    def painted(cls, height: int, width: int, classes: int, tags: int, seed: int) -> Scene:
        """Ellipses on a smooth background; their scores are too wide and blurred at the edges."""
        generator = np.random.default_rng(seed)
        coarse_hw3 = generator.uniform(40, 160, (4, 5, 3)).astype(np.float32)
        image_HW3 = cv2.resize(coarse_hw3, (width, height), interpolation=cv2.INTER_CUBIC)
        scores_CHW = np.zeros((classes + 1, height, width), dtype=np.float32)
        present_K = np.zeros(classes, dtype=np.bool_)
        present_K[generator.choice(classes, tags, replace=False)] = True
        for k in np.flatnonzero(present_K):
            centre = (int(generator.uniform(0.2, 0.8) * width), int(generator.uniform(0.2, 0.8) * height))
            axes = (max(2, width // 6), max(2, height // 5))
            object_HW = cv2.ellipse(np.zeros((height, width), np.uint8), centre, axes, 0, 0, 360, 1, -1)
            image_HW3[object_HW > 0] = generator.uniform(40, 255, 3)
            blurred_HW = cv2.GaussianBlur(object_HW.astype(np.float32), (0, 0), height / 20)
            scores_CHW[k + 1] = blurred_HW / blurred_HW.max()
        scores_CHW[0] = (1 - scores_CHW.max(axis=0)) ** 2
        noisy_HW3 = image_HW3 + generator.normal(0, NOISE, image_HW3.shape)
        return cls(noisy_HW3.clip(0, 255).astype(np.uint8), scores_CHW, present_K)

    def over_all_classes(self) -> NDArray[np.uint8]:
        """Label map of the baseline."""
        label_HW: NDArray[np.uint8] = crf_probabilities(self.image_HW3, self.scores_CHW, SETTINGS).argmax(axis=0)
        return label_HW.astype(np.uint8)

    def over_present_classes(self, crf: Crf = crf_probabilities) -> NDArray[np.uint8]:
        """Label map from the background and the present classes only, as `wsss` makes it."""
        index_C = np.flatnonzero(np.concatenate(([True], self.present_K))).astype(np.uint8)
        scores, size = torch.from_numpy(self.scores_CHW[index_C]), self.scores_CHW.shape[1:]
        return crf_label(self.image_HW3, scores, torch.from_numpy(index_C), size, SETTINGS, crf).numpy()


def serially(scenes: list[Scene], *, present: bool) -> list[NDArray[np.uint8]]:
    """All label maps, one after the other."""
    return [scene.over_present_classes() if present else scene.over_all_classes() for scene in scenes]


def compare(scenes: list[Scene], count: int, rounds: int) -> dict[str, Times]:
    """Times of the three ways, after a check that their labels agree."""
    with Pool(count) as pool, crf_processes(count) as crf:

        def jobs() -> Iterator[Job[NDArray[np.uint8]]]:
            for i, scene in enumerate(scenes):
                yield Job(str(i), partial(scene.over_present_classes, partial(crf.call, str(i))))

        usual, ours, parallel = serially(scenes, present=False), serially(scenes, present=True), list(pool.run(jobs()))
        agreement = float(np.mean([(a == b).mean() for a, b in zip(usual, ours, strict=True)]))
        if agreement < AGREEMENT:
            raise SystemExit(f"only {agreement:.2%} of the labels agree with those of all classes")
        if not all(np.array_equal(a, b) for a, b in zip(ours, parallel, strict=True)):
            raise SystemExit("processes give other labels")
        return take_turns(
            {
                ALL: lambda: serially(scenes, present=False),
                PRESENT: lambda: serially(scenes, present=True),
                in_processes(count): lambda: list(pool.run(jobs())),
            },
            rounds,
            CPU,
        )


def in_processes(count: int) -> str:
    """Name of the row with this number of processes."""
    return f"{PRESENT}, {count} processes"


def main(
    height: int = 375,
    width: int = 500,
    classes: int = 20,
    images: Annotated[int, typer.Option(help="Images of a round; 9 have 1.56 classes on average.")] = 9,
    rounds: int = 3,
    processes: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Print one table."""
    require_crf()
    scenes = [Scene.painted(height, width, classes, TAGS[i % len(TAGS)], seed=i) for i in range(images)]
    times = compare(scenes, processes, rounds)
    average = float(np.mean([scene.present_K.sum() for scene in scenes]))
    print(f"\n{images} images of {height} x {width}, {classes} classes, {average:.2f} an image", end="; ")
    print(machine(CPU), end="\n\n")
    rows = [
        [name, f"{images / ours.median:.2f}", ratio_cell(times[ALL], ours), ratio_cell(times[PRESENT], ours)]
        for name, ours in times.items()
    ]
    print(table(["dense CRF", "images/s", f"times faster than {ALL}", f"than {PRESENT}"], rows))
    print(f"\nRatios: median (smallest-largest) of {rounds} round(s).")


if __name__ == "__main__":
    typer.run(main)
