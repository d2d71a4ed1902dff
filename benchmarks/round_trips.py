"""Convert a data set to each format and back, and compare tags and masks with what went in: the table of RESULTS.md.

    python benchmarks/round_trips.py --data DIR --split val

The masks go in as they are; pixels of the value 255 (ignored) have no place in most formats and are not compared. Tags
that have no pixel in their mask are lost where a format holds areas alone.

Shape suffixes: H x W pixels.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from measuring import table

from wsss.config import Reading
from wsss.data.dataset import list_splits, open_data
from wsss.data.masks import IGNORE_INDEX
from wsss.data.records import TaggedSet

WAYS: dict[str, list[str]] = {
    "folder": ["--masks"],
    "webdataset": ["--masks"],
    "coco": [],
    "coco, polygons": ["--polygons"],
    "yolo": [],
    "label-studio": ["--as-annotations"],
    "label-studio, polygons": ["--as-annotations", "--polygons"],
    "cvat": [],
    "cvat-masks": [],
}


def main(data: Annotated[Path, typer.Option()], split: str = "val") -> None:
    """Print the table."""
    original = open_data(data, split=split)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for way, options in WAYS.items():
            out = Path(temporary) / way.replace(", ", "-")
            began = time.monotonic()
            words = ["wsss", "data", "convert", data, "-o", out, "--to", way.partition(",")[0], "--split", split]
            subprocess.run([*map(str, words), *options], check=True, capture_output=True)
            written = time.monotonic() - began
            rows.append([way, *compared(original, out), f"{written:.0f}"])
    print(table(["format", "images", "tags equal", "masks equal", "pixels equal, %", "seconds to write"], rows))


def compared(original: TaggedSet, folder: Path) -> list[str]:
    """Images read back, how many have the same tags and the same masks, and the share of equal pixels."""
    reading = Reading(tags_from="masks" if folder.name == "cvat-masks" else "auto")
    splits = list_splits(folder, reading)
    back = {
        record.name.rpartition("/")[2]: (one, record)
        for name in splits
        for one in [open_data(folder, split=name, reading=reading, need_tags=False)]
        for record in one.records
    }
    tags = masks = equal = pixels = 0
    for record in original.records:
        if record.name.rpartition("/")[2] not in back:
            continue
        tagged, other = back[record.name.rpartition("/")[2]]
        before = {original.classes[tag] for tag in record.tags}
        tags += before == {tagged.classes[tag] for tag in other.tags}
        truth_HW, read_HW = original.truth(record), tagged.truth(other)
        if truth_HW is None or read_HW is None:
            continue
        same_HW = (truth_HW == read_HW)[truth_HW != IGNORE_INDEX]
        masks += bool(same_HW.all())
        equal, pixels = equal + int(same_HW.sum()), pixels + same_HW.size
    return [str(len(back)), str(tags), str(masks), f"{100 * equal / max(1, pixels):.4f}"]


if __name__ == "__main__":
    typer.run(main)
