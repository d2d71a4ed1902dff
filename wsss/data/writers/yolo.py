"""Write YOLO segmentation: ``images/SPLIT``, ``labels/SPLIT`` with a polygon a line, and data.yaml."""

from __future__ import annotations

from pathlib import Path

from wsss.data.outlines import bridged, parts
from wsss.data.writers.writer import Export, Writer
from wsss.files import write_whole
from wsss.plain_yaml import dump_yaml


def write_yolo(out: Path, export: Export) -> None:
    """Fill a folder; an image without areas gets an empty file of labels."""
    for picture, label_HW in export.labels():
        export.place(picture, out / "images" / picture.split / picture.file)
        lines = []
        for part in () if label_HW is None else parts(label_HW, len(export.classes)):
            assert label_HW is not None
            height, width = label_HW.shape
            corners = [f"{x / width:.6f} {y / height:.6f}" for x, y in bridged(*part.rings())]
            lines.append(f"{part.class_index - 1} {' '.join(corners)}\n")
        write_whole(out / "labels" / picture.split / f"{picture.name}.txt", "".join(lines))
    content = {
        **{split: f"images/{split}" for split in export.splits()},
        "names": dict(enumerate(export.classes)),
    }
    write_whole(out / "data.yaml", dump_yaml(content))
    export.remarks.append("coordinates have 6 decimals: areas of very large images may differ by single pixels")


YOLO = Writer(name="yolo", writes="images/SPLIT, labels/SPLIT with polygons, and data.yaml", write=write_yolo)
