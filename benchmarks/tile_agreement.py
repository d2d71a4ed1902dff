"""Masks of whole photos against masks of the same photos in windows, read at the same pixels: the table of RESULTS.md.

    python benchmarks/tile_agreement.py RUN --data DIR --split val --images 60

Each photo is read whole at ``--side``, and in overlapping windows of two thirds of its longer side, each read at
as much less: a pixel of the network's input is then the same size in both. Windows see less of what is around. Printed
are the share of pixels that get another class, the same near the borders of windows, where a seam would be, and mIoU.

Shape suffixes: H x W pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from wsss.config import resolve
from wsss.data.dataset import open_data
from wsss.data.images import decode_image
from wsss.data.windows import windows_of
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.inference.segmenter import Segmenter
from wsss.models.checkpoint import load_network


def seam_rows(starts: tuple[int, ...], side: int, length: int) -> NDArray[np.bool_]:
    """(length,) bool: within 8 pixels of where a window begins or ends inside of the picture."""
    near = np.zeros(length, bool)
    for edge in {*starts, *(start + side for start in starts)} - {0, length}:
        near[max(0, edge - 8) : edge + 8] = True
    return near


def main(
    run: Path,
    data: Annotated[Path, typer.Option()],
    split: str = "val",
    images: int = 60,
    side: int = 320,
) -> None:
    """Print the table."""
    tagged = open_data(data, split=split)
    network, _, _ = load_network(run)
    whole_matrix, tiled_matrix = (ConfusionMatrix(len(tagged.classes) + 1) for _ in range(2))
    differ, seam_differ, pixels, seam_pixels = 0, 0, 0, 0
    for record in tagged.records[:images]:
        image_HW3 = decode_image(record.read(), record.image)
        size = (image_HW3.shape[0], image_HW3.shape[1])
        tile = round(max(size) * 2 / 3)
        down, across = windows_of(size, tile)
        # a window is read at this side for the area of tile x tile, so its pixels are those of the whole
        inner = round(side * tile / np.sqrt(size[0] * size[1]))
        whole = Segmenter(network, resolve(flags={"predict.scales": (side,)}), torch.device("cpu"))
        tiled = Segmenter(
            network, resolve(flags={"predict.scales": (inner,), "predict.tile": tile}), torch.device("cpu")
        )
        whole_HW, tiled_HW = whole.predict(image_HW3).label_HW, tiled.label_large(image_HW3)
        other_HW = whole_HW != tiled_HW
        near_HW = seam_rows(down.starts, down.side, size[0])[:, None] | seam_rows(across.starts, across.side, size[1])
        differ, pixels = differ + int(other_HW.sum()), pixels + other_HW.size
        seam_differ, seam_pixels = seam_differ + int(other_HW[near_HW].sum()), seam_pixels + int(near_HW.sum())
        truth_HW = tagged.truth(record)
        if truth_HW is not None:
            whole_matrix.update(whole_HW, truth_HW)
            tiled_matrix.update(tiled_HW, truth_HW)
    print(f"{min(images, len(tagged))} photos: {100 * differ / pixels:.2f}% of the pixels differ,")
    print(f"near the borders of windows {100 * seam_differ / max(1, seam_pixels):.2f}%")
    print(f"mIoU whole {100 * whole_matrix.mean_iou():.1f}, windows {100 * tiled_matrix.mean_iou():.1f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    typer.run(main)
