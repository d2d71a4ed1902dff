"""What `wsss analyze` writes: figures as JSON, the chosen range as a config file, and a picture of all heads."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsss.analysis.summary import Analysis
from wsss.files import write_whole
from wsss.outputs.pictures import contact_sheet, write_png

FIGURES, LAYERS, PICTURE = "analysis.json", "layers.yaml", "heads.png"
TILE_WIDTH = 110
CELL = 12
"""Side of an offset in the picture before it is laid out, pixels."""


def write_report(out: Path, analysis: Analysis) -> list[Path]:
    """Write ``analysis.json``, ``layers.yaml`` and ``heads.png``.

    Returns:
        their paths.

    Raises:
        DiskError: a file cannot be written.
    """
    write_whole(out / FIGURES, json.dumps(analysis.to_json(), indent=1) + "\n")
    write_whole(out / LAYERS, layers_yaml(analysis))
    write_png(out / PICTURE, heads_picture(analysis))
    return [out / name for name in (FIGURES, LAYERS, PICTURE)]


def layers_yaml(analysis: Analysis) -> str:
    """A config file with the chosen first block, which ``-c`` takes."""
    facts = analysis.facts
    return (
        f"# wsss analyze: {analysis.words()}\n"
        f"# method {facts['method']}, {analysis.images} images of split {facts['split']} at {facts['side']} px;"
        " chosen without masks\n"
        f"maps:\n  start_layer: {analysis.start_layer}\n"
    )


def heads_picture(analysis: Analysis) -> NDArray[np.uint8]:
    """One tile a head, a row a block: how much it looks at each offset; the centre is the query itself.

    Yellow is the strongest offset of the head, dark blue none. (H, W, 3) RGB.
    """
    tiles = []
    for head in analysis.heads:
        mean_OO = np.nan_to_num(analysis.offsets_LAOO[head.block, head.head])
        level_OO = np.rint(255 * mean_OO / max(mean_OO.max(), np.finfo(np.float64).tiny)).astype(np.uint8)
        colour_OO3 = cv2.cvtColor(cv2.applyColorMap(level_OO, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
        named = "" if head.offset == "-" else f" {head.offset} {100 * head.share:.0f}%"
        drawn = cv2.resize(colour_OO3, None, fx=CELL, fy=CELL, interpolation=cv2.INTER_NEAREST)
        tiles.append((f"{head.block}.{head.head}{named}", np.asarray(drawn, dtype=np.uint8)))
    return contact_sheet(tiles, len(analysis.of_block(0)), TILE_WIDTH)
