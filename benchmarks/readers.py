"""The readers on large files: a synthetic COCO file and a synthetic table of tags, each read twice in new processes.

    python benchmarks/readers.py

The images are not opened; COCO's second reading uses the cache. Memory is the growth of the resident memory.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from measuring import MEBIBYTE, machine, resident_memory, table

OUTLINE = [[round(10.25 + 1.37 * point, 2) for point in range(60)]]


def write_coco(path: Path, count: int, objects: int) -> None:
    """COCO annotations of this many images, each with as many objects of 30 points."""
    with path.open("w") as file:
        images = [{"id": n, "file_name": f"{n:012}.jpg", "width": 640, "height": 480} for n in range(count)]
        file.write(f'{{"images": {json.dumps(images)}, "annotations": [')
        for n in range(count * objects):
            one = {"id": n, "image_id": n // objects, "category_id": n % 80, "segmentation": OUTLINE, "iscrowd": 0}
            file.write(("," if n else "") + json.dumps(one))
        categories = [{"id": n, "name": f"class {n}"} for n in range(80)]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def read(root: Path) -> tuple[float, float, float]:
    """Seconds, those of the processor, and MiB of one reading of all annotations, without the search for the images."""
    from wsss.config import Reading
    from wsss.data.readers.reader import Options
    from wsss.data.readers.registry import find_reader

    before, start, used = resident_memory(), time.perf_counter(), time.process_time()
    source = find_reader(root, Reading()).open(root, Options())
    assert source.splits()
    return (
        time.perf_counter() - start,
        time.process_time() - used,
        (resident_memory() - before) / MEBIBYTE,
    )


def main(images: Annotated[int, typer.Option()] = 100_000, objects: Annotated[int, typer.Option()] = 7) -> None:
    """Write the files, read them, and print a table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        coco, tags = Path(folder, "coco"), Path(folder, "tags")
        coco.mkdir()
        tags.mkdir()
        write_coco(coco / "instances_train.json", images, objects)
        lines = (f"{n:012}.jpg,class{n % 80} class{n % 7}\n" for n in range(images))
        (tags / "tags.csv").write_text("image,labels\n" + "".join(lines))
        for name, root in (("COCO", coco), ("COCO, again", coco), ("tags.csv", tags), ("tags.csv, again", tags)):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, busy, memory = pool.apply(read, (root,))
            rows.append([name, f"{seconds:.1f}", f"{busy:.1f}", f"{memory:.0f}"])
    print(machine(torch.device("cpu")))
    print(table(["what", "seconds", "of the processor", "MiB"], rows))


if __name__ == "__main__":
    typer.run(main)
