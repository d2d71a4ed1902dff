"""Write COCO instances, one annotation a connected part, and COCO results, one a class and image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.data.areas import filled
from wsss.data.findings import BadData
from wsss.data.images import split_suffix
from wsss.data.near_names import tidy
from wsss.data.outlines import Part, bridged, parts
from wsss.data.writers.writer import Export, Picture, Writer
from wsss.errors import UsageError
from wsss.files import write_whole


def write_coco(out: Path, export: Export) -> None:
    """Fill a folder with ``annotations/instances_SPLIT.json`` and the images in ``images/SPLIT/``."""
    categories = [{"id": k, "name": name, "supercategory": ""} for k, name in enumerate(export.classes, start=1)]
    contents: dict[str, dict[str, list[Any]]] = {
        split: {"images": [], "annotations": [], "categories": categories} for split in export.splits()
    }
    for picture, label_HW in export.labels():
        content = contents[picture.split]
        height, width = size = picture.size(label_HW)
        image = {"id": len(content["images"]) + 1, "file_name": picture.file, "width": width, "height": height}
        content["images"].append(image)
        export.place(picture, out / "images" / picture.split / picture.file)
        for part in () if label_HW is None else parts(label_HW, len(export.classes)):
            annotation = _annotation(part, size, polygons=export.polygons)
            number = len(content["annotations"]) + 1
            known = picture.certainty.get(part.class_index)
            score = {} if known is None else {"score": known}
            content["annotations"].append({"id": number, "image_id": image["id"], **annotation, **score})
    for split, content in contents.items():
        write_whole(out / "annotations" / f"instances_{split}.json", json.dumps(content, ensure_ascii=False))


def _annotation(part: Part, size: tuple[int, int], *, polygons: bool) -> dict[str, Any]:
    if polygons:
        segmentation: Any = [[number for corner in bridged(*part.rings()) for number in corner]]
    else:
        mask_HW = np.zeros(size, np.bool_)
        left, top, width, height = part.box
        mask_HW[top : top + height, left : left + width] = part.mask_hw
        segmentation = run_lengths(mask_HW)
    return {
        "category_id": part.class_index,
        "segmentation": segmentation,
        "area": part.area,
        "bbox": [*part.box],
        "iscrowd": 0,
        "attributes": {},
    }


def run_lengths(mask_HW: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's compressed run lengths, which JSON can hold."""
    area = filled(mask_HW)
    return {"size": [*mask_HW.shape], "counts": area["counts"].decode("ascii")}


def write_results(out: Path, export: Export) -> None:
    """Write ``results.json`` with the ids of the COCO file that ``export.like`` names.

    Raises:
        UsageError: none is named.
        DataError: it is none, or lacks an image or a class.
    """
    if export.like is None:
        raise UsageError("COCO results have the ids of a COCO file", "--like instances_val2017.json")
    image_ids, category_ids = _ids(export.like)
    results = []
    for picture, label_HW in export.labels():
        image_id = _image_id(picture, image_ids, export.like)
        for k, name in enumerate(export.classes, start=1):
            mask_HW = np.zeros((0, 0), np.bool_) if label_HW is None else label_HW == k
            if not mask_HW.any():
                continue
            if tidy(name) not in category_ids:
                what = f"no category '{name}'"
                raise BadData.at("annotation-unreadable", export.like, what, "give the file of this data set")
            category = category_ids[tidy(name)]
            area = run_lengths(mask_HW)
            results.append(
                {
                    "image_id": image_id,
                    "category_id": category,
                    "segmentation": area,
                    "score": picture.certainty.get(k, 1.0),
                }
            )
    write_whole(out / "results.json", json.dumps(results))


def _ids(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ids of the images by their names without ending and folders, and of the categories by their names."""
    try:
        content = json.loads(path.read_bytes())
        images = {split_suffix(str(one["file_name"]))[0]: one["id"] for one in content["images"]}
        return images, {tidy(str(one["name"])): one["id"] for one in content["categories"]}
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        what = f"no COCO file with images and categories ({type(error).__name__}: {error})"
        raise BadData.at("annotation-unreadable", path, what, "--like instances_val2017.json") from error


def _image_id(picture: Picture, ids: dict[str, Any], like: Path) -> Any:
    """The id of an image, whose name may have more folders before it."""
    folders = picture.name.split("/")
    names = ("/".join(folders[first:]) for first in range(len(folders)))
    name = next((name for name in names if name in ids), None)
    if name is None:
        what = f"no image '{picture.file}'"
        raise BadData.at("image-missing", like, what, "give the file that lists these images")
    return ids[name]


COCO = Writer(
    name="coco",
    writes="annotations/instances_SPLIT.json with run lengths (--polygons: outlines), and images/SPLIT/",
    write=write_coco,
)
COCO_RESULTS = Writer(
    name="coco-results", writes="results.json with the ids of --like, for COCO's servers and tools", write=write_results
)
