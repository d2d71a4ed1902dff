"""train-cls, train-seg and predict, run on painted scenes in each format that must be read, with its usual quirks."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from wsss.data.dataset import open_data

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what readers guess or leave out

CLASSES = ("bee", "ladybird")
TRAIN, VAL = 12, 4
SMALL = [
    "model.backbone=vit_tiny_patch16_224", "model.weights=none", "model.decoder_channels=8",
    "model.vit={patch_size: 8, img_size: 32, embed_dim: 24, depth: 2, num_heads: 3}",
    "augment.size=32", "classify.epochs=1", "segment.epochs=1", "segment.rounds=1", "classify.batch_size=4",
    "segment.batch_size=4", "maps.start_layer=0", "maps.scales=[32]", "predict.scales=[32]", "predict.crf=false",
    "run.workers=0", "run.device=cpu", "run.amp=none",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Photo:
    """A scene: name without ending, "train" or "val", its classes, JPEG file, and (H, W) class indices."""

    name: str
    split: str
    tags: tuple[str, ...]
    file: Path
    mask_HW: NDArray[np.uint8]

    @property
    def cells(self) -> list[int]:
        return [int(name in self.tags) for name in CLASSES]


def copy(photo: Photo, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(photo.file, to)


def write_csv(path: Path, rows: Iterable[Iterable[object]], delimiter: str = ",", encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def coco_content(photos: list[Photo], name_of: Callable[[Photo], str], first_id: int, **more: Any) -> dict[str, Any]:
    """A COCO object with a run length for each class of each image; ids count from ``first_id`` up."""
    images = [
        {"id": k, "file_name": name_of(one), "height": len(one.mask_HW), "width": one.mask_HW.shape[1]}
        for k, one in enumerate(photos)
    ]
    annotations = []
    for k, one in enumerate(photos):
        for index in sorted(CLASSES.index(tag) for tag in one.tags):
            run = coco.encode(np.asfortranarray(one.mask_HW == index + 1))
            rle = {"size": [int(side) for side in run["size"]], "counts": run["counts"].decode()}
            one_annotation = {"image_id": k, "category_id": index + first_id, "segmentation": rle, "iscrowd": 0}
            box = [float(side) for side in coco.toBbox(run)]
            annotations.append({"id": len(annotations) + 1, "bbox": box, "area": box[2] * box[3], **one_annotation})
            annotations[-1] |= more
    categories = [{"id": index + first_id, "name": name} for index, name in enumerate(CLASSES)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def coco_instances(photos: list[Photo], root: Path) -> list[str]:
    for split in ("train", "val"):
        part = [one for one in photos if one.split == split]
        for one in part:
            copy(one, root / f"{split}2017" / one.file.name)
        content = coco_content(part, lambda one: one.file.name, 17)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return []


def coco_roboflow(photos: list[Photo], root: Path) -> list[str]:
    for split, folder in (("train", "train"), ("val", "valid")):
        part = [one for one in photos if one.split == split]
        for one in part:
            copy(one, root / folder / f"{one.name}_jpg.rf.{'0' * 31}a.jpg")
        content = coco_content(part, lambda one: f"{one.name}_jpg.rf.{'0' * 31}a.jpg", 1)
        for category in content["categories"]:
            category["supercategory"] = "insects"
        content["categories"].insert(0, {"id": 0, "name": "insects", "supercategory": "none"})
        (root / folder / "_annotations.coco.json").write_text(json.dumps(content))
    return []


def coco_cvat(photos: list[Photo], root: Path) -> list[str]:
    for one in photos:
        copy(one, root / "images" / "default" / "deck 2" / one.file.name)
    content = coco_content(photos, lambda one: f"deck 2/{one.file.name}", 1, iscrowd=1, attributes={"occluded": False})
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_default.json").write_text(json.dumps(content))
    return []


def coco_label_studio(photos: list[Photo], root: Path) -> list[str]:
    for one in photos:
        copy(one, root / "images" / f"1a2b3c4d-{one.file.name}")
    content = coco_content(photos, lambda one: f"images\\1a2b3c4d-{one.file.name}", 0)
    (root / "result.json").write_text(json.dumps(content))
    return []


def beside_images(photos: list[Photo], root: Path) -> None:
    for one in photos:
        copy(one, root / "images" / one.file.name)


def table_onehot(photos: list[Photo], root: Path) -> list[str]:
    beside_images(photos, root)
    rows = [(k + 7, one.file.name, *(f"{cell}.0" for cell in one.cells)) for k, one in enumerate(photos)]
    write_csv(root / "labels.csv", [("id", "filename", *CLASSES), *rows])
    return []


def table_space(photos: list[Photo], root: Path) -> list[str]:
    beside_images(photos, root)
    write_csv(root / "train_v2.csv", [("image_name", "tags"), *((one.name, " ".join(one.tags)) for one in photos)])
    return []


def table_pipe(photos: list[Photo], root: Path) -> list[str]:
    beside_images(photos, root)
    rows = [(one.file.name, "|".join(one.tags) or "No Finding", 40, "") for one in photos]
    write_csv(root / "Data_Entry_2017.csv", [("Image Index", "Finding Labels", "Patient Age", ""), *rows])
    return ["--none", "No Finding"]


def table_pairs(photos: list[Photo], root: Path) -> list[str]:
    beside_images(photos, root)
    rows = [(one.file.name, tag, 1, 2) for one in photos for tag in (*one.tags, *one.tags[:1])]
    write_csv(root / "annotations.csv", [("image", "label", "x1", "y1"), *rows])
    return []


def table_excel(photos: list[Photo], root: Path) -> list[str]:
    beside_images(photos, root)
    rows = [(one.file.name, "|".join(one.tags), one.split) for one in photos]
    write_csv(root / "Etiketten.csv", [("Datei", "Klassen", "Aufteilung"), *rows], ";", "utf-8-sig")
    return ["--columns", "image=Datei,labels=Klassen,split=Aufteilung"]


def table_json(photos: list[Photo], root: Path) -> list[str]:
    beside_images(photos, root)
    (root / "labels.json").write_text(json.dumps([{"file": one.file.name, "tags": one.tags} for one in photos]))
    return []


def table_jsonl(photos: list[Photo], root: Path) -> list[str]:
    beside_images(photos, root)
    lines = [json.dumps({"file": one.file.name, "tags": one.tags}) for one in photos]
    (root / "labels.jsonl").write_text("\n".join(lines) + "\n")
    return []


def roboflow_multiclass(photos: list[Photo], root: Path) -> list[str]:
    for split, folder in (("train", "train"), ("val", "valid")):
        part = [one for one in photos if one.split == split]
        for one in part:
            copy(one, root / folder / f"{one.name}_jpg.rf.ab.jpg")
        lines = [", ".join(map(str, (f"{one.name}_jpg.rf.ab.jpg", *one.cells))) for one in part]
        (root / folder / "_classes.csv").write_text("\n".join([", ".join(("filename", *CLASSES)), *lines]))
    return []


def label_studio_json(photos: list[Photo], root: Path) -> list[str]:
    tasks = []
    for k, one in enumerate(photos):
        copy(one, root / "images" / f"my {one.file.name}")
        groups = {"insect": list(one.tags), "quality": ["sharp"]}
        result = [
            {"value": {"choices": words}, "id": f"c{name}", "from_name": name, "to_name": "image", "type": "choices"}
            for name, words in groups.items()
            if words
        ]
        annotation = {"id": k, "result": result, "was_cancelled": False, "updated_at": "2025-03-09T22:16:08.7Z"}
        image = f"/data/upload/3/1a2b3c4d-my%20{one.file.name}"
        tasks.append({"id": k + 11, "annotations": [annotation], "predictions": [], "data": {"image": image}})
    (root / "project-3-at-2025-03-12.json").write_text(json.dumps(tasks))
    return ["--tag-field", "insect"]


def cvat_segmentation_mask(photos: list[Photo], root: Path) -> list[str]:
    colours = np.array([(0, 0, 0), (217, 3, 216), (224, 64, 64)], np.uint8)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "SegmentationClass" / "plot 1").mkdir(parents=True)
    for split in ("train", "val"):
        names = [f"plot 1/{one.name}\n" for one in photos if one.split == split]
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(names))
    for one in photos:
        copy(one, root / "JPEGImages" / "plot 1" / one.file.name)
        Image.fromarray(colours[one.mask_HW]).save(root / "SegmentationClass" / "plot 1" / f"{one.name}.png")
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in zip(("background", *CLASSES), colours, strict=True)]
    (root / "labelmap.txt").write_text("\r\n".join(["# label:color_rgb:parts:actions", *lines, ""]))
    return ["--tags-from", "masks"]


def class_folders(photos: list[Photo], root: Path) -> list[str]:
    for k, one in enumerate(photos):
        copy(one, root / one.split / (one.tags[0] if one.tags else "background") / f"{k:03d}.jpg")
    (root / "train" / ".DS_Store").write_bytes(b"\x00")
    return []


def histology_names(photos: list[Photo], root: Path) -> list[str]:
    for k, one in enumerate(photos):
        copy(one, root / one.split / f"9000001-2300-{k}-[{' '.join(map(str, one.cells))}].jpg")
    return ["--classes", ",".join(CLASSES)]


MUST = (
    coco_instances, coco_roboflow, coco_cvat, coco_label_studio, table_onehot, table_space, table_pipe, table_pairs,
    table_excel, table_json, table_jsonl, roboflow_multiclass, label_studio_json, cvat_segmentation_mask,
    class_folders, histology_names,
)  # fmt: skip
ONE_SPLIT = ("coco_cvat", "coco_label_studio", "table_onehot", "table_space", "table_pipe", "table_pairs",
             "table_json", "table_jsonl", "label_studio_json")  # fmt: skip


@pytest.fixture
def photos(scenes: Path) -> list[Photo]:
    found = []
    for split, count in (("train", TRAIN), ("val", VAL)):
        tagged = open_data(scenes, split=split)
        for record in tagged.records[:count]:
            mask = tagged.truth(record)
            assert mask is not None
            tags = tuple(CLASSES[tag] for tag in record.tags)
            found.append(Photo(record.name, split, tags, record.image, mask))
    return found


@pytest.mark.parametrize("layout", MUST, ids=lambda layout: layout.__name__)
def test_three_commands(
    layout: Callable[[list[Photo], Path], list[str]], photos: list[Photo], wsss: Any, tmp_path: Path
) -> None:
    root, new = tmp_path / "data", tmp_path / "new"
    root.mkdir()
    words = layout(photos, root)
    sizes = {"wide photo": (70, 33), "high": (40, 90)}
    new.mkdir()
    for name, size in sizes.items():
        with Image.open(photos[0].file) as image:
            image.resize(size).save(new / f"{name}.png")
    settings = [part for pair in SMALL for part in ("--set", pair)]

    done = wsss("train-cls", "--data", root, "-o", tmp_path / "cls", *words, *settings)
    assert done.status == 0, done.err
    init = ["--init", tmp_path / "cls", "-o", tmp_path / "seg"]
    done = wsss("train-seg", "--data", root, *init, *words, *settings)
    assert done.status == 0, done.err
    done = wsss("predict", tmp_path / "seg", new, "-o", tmp_path / "masks", *settings)
    assert done.status == 0, done.err

    one_split = layout.__name__ in ONE_SPLIT
    for run in ("cls", "seg"):
        checkpoint = torch.load(tmp_path / run / "last.pt", map_location="cpu", weights_only=True)
        assert tuple(checkpoint["classes"]) == CLASSES
        assert checkpoint["supervision"] == [supervision(layout)]
        told = json.loads((tmp_path / run / "run.json").read_text())
        trained = (TRAIN + VAL if one_split else TRAIN) - unlisted(layout, photos)
        assert told["choices"]["images"] == trained
    assert (tmp_path / "cls" / "best.pt").is_file() != one_split
    assert {path.stem for path in (tmp_path / "masks" / "labels").iterdir()} == set(sizes)
    for name, size in sizes.items():
        with Image.open(tmp_path / "masks" / "labels" / f"{name}.png") as label:
            assert (label.mode, label.size) == ("P", size)
            assert np.isin(np.asarray(label), range(len(CLASSES) + 1)).all()


def supervision(layout: Callable[..., Any]) -> str:
    if layout is cvat_segmentation_mask:
        return "tags from masks"
    return "tags of instance annotations" if layout.__name__.startswith("coco_") else "tags"


def unlisted(layout: Callable[..., Any], photos: list[Photo]) -> int:
    """Images without a class have no line in a table of pairs."""
    return sum(not one.tags for one in photos) if layout is table_pairs else 0
