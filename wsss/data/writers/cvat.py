"""Write CVAT's two formats of masks: "CVAT for images 1.1" (XML) and "Segmentation mask 1.1"."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsss.data.masks import PALETTE
from wsss.data.outlines import parts
from wsss.data.writers.writer import Export, Writer, colour, plain_names
from wsss.files import write_whole


def write_cvat(out: Path, export: Export) -> None:
    """Fill a folder with annotations.xml, one mask a connected part, and the images."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for k, name in enumerate(export.classes, start=1):
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "color").text = f"#{bytes(colour(k)).hex()}"
    for number, (picture, label_HW) in enumerate(export.labels()):
        height, width = picture.size(label_HW)
        export.place(picture, out / "images" / picture.file)
        facts = {"id": str(number), "name": picture.file, "subset": picture.split}
        image = ElementTree.SubElement(root, "image", {**facts, "width": str(width), "height": str(height)})
        for part in () if label_HW is None else parts(label_HW, len(export.classes)):
            box = dict(zip(("left", "top", "width", "height"), map(str, part.box), strict=True))
            name = export.classes[part.class_index - 1]
            mask = {"label": name, "source": "auto", "occluded": "0", "rle": row_lengths(part.mask_hw)}
            ElementTree.SubElement(image, "mask", {**mask, **box, "z_order": "0"})
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    write_whole(out / "annotations.xml", f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n')


def row_lengths(mask_hw: NDArray[np.bool_]) -> str:
    """Run lengths row by row, the first of zeros, as CVAT writes them."""
    flat = mask_hw.reshape(-1)
    bounds = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *bounds.tolist(), flat.size]).tolist()
    return ", ".join(map(str, [0, *lengths] if flat[0] else lengths))


def write_cvat_masks(out: Path, export: Export) -> None:
    """Fill a folder with labelmap.txt, RGB masks of classes and of parts, lists of names, and the images.

    Raises:
        UsageError: a class name has a character that labelmap.txt cannot hold.
    """
    plain_names(export, ":\n#", "labelmap.txt")
    lines = ["# label:color_rgb:parts:actions"]
    for k, name in enumerate(("background", *export.classes)):
        lines.append(f"{name}:{','.join(map(str, colour(k)))}::")
    write_whole(out / "labelmap.txt", "\n".join(lines) + "\n")
    listed: dict[str, list[str]] = {split: [] for split in export.splits()}
    for picture, label_HW in export.labels():
        export.place(picture, out / "JPEGImages" / picture.file)
        listed[picture.split].append(picture.name)
        if label_HW is None:
            continue
        object_HW = np.zeros(label_HW.shape, np.uint8)
        for number, part in enumerate(parts(label_HW, len(export.classes))):
            left, top, width, height = part.box
            object_HW[top : top + height, left : left + width][part.mask_hw] = number % 254 + 1
        _write_rgb(out / "SegmentationClass" / f"{picture.name}.png", PALETTE[label_HW])
        _write_rgb(out / "SegmentationObject" / f"{picture.name}.png", PALETTE[object_HW])
    for split, names in listed.items():
        write_whole(out / "ImageSets" / "Segmentation" / f"{split}.txt", "".join(f"{name}\n" for name in names))


def _write_rgb(path: Path, image_HW3: NDArray[np.uint8]) -> None:
    encoded = io.BytesIO()
    Image.fromarray(image_HW3).save(encoded, format="PNG", compress_level=1)
    write_whole(path, encoded.getvalue())


CVAT = Writer(name="cvat", writes="annotations.xml (CVAT for images 1.1) with masks, and images/", write=write_cvat)
CVAT_MASKS = Writer(
    name="cvat-masks",
    writes='CVAT\'s "Segmentation mask 1.1": labelmap.txt, SegmentationClass, SegmentationObject, JPEGImages',
    write=write_cvat_masks,
)
