"""What two sources of a data folder say differently is told by `wsss data check`, and nothing else is.

``WSSS_ODD_FOLDERS=2000 pytest tests/data/test_contradictions.py`` tries 2000 folders of each layout.
"""

from __future__ import annotations

import os
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.check import inspect_data
from wsss.data.dataset import open_dataset
from wsss.data.masks import write_mask
from wsss.reporting import Silent

FOLDERS = int(os.environ.get("WSSS_ODD_FOLDERS", "20"))
CLASSES = ("cat", "dog")
NAMES = tuple("abcdef")
SIZE = (20, 24)

Contradict = Callable[[Path, random.Random], None]


def xml(name: str, labels: tuple[str, ...], size: tuple[int, int] = SIZE) -> str:
    objects = "".join(f"<object><name>{label}</name></object>" for label in labels)
    sides = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>"
    return f"<annotation><filename>{name}.jpg</filename>{sides}{objects}</annotation>"


def labels_of(name: str) -> tuple[str, ...]:
    return (CLASSES[NAMES.index(name) % 2],)


def masks(folder: Path) -> None:
    for name in NAMES:
        write_mask(folder / f"{name}.png", np.full(SIZE, CLASSES.index(labels_of(name)[0]) + 1, np.uint8))


def photos(folder: Path) -> None:
    folder.mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        noise_HW3 = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(noise_HW3).save(folder / f"{name}.jpg")


def table(root: Path) -> None:
    rows = (f"{name},{labels_of(name)[0]},{'train' if name in NAMES[:4] else 'val'}" for name in NAMES)
    (root / "tags.csv").write_text("\n".join(["image,labels,split", *rows, ""]))


def make_voc(root: Path) -> None:
    photos(root / "JPEGImages")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(NAMES[:4]))
    (lists / "val.txt").write_text("\n".join(NAMES[4:]))
    (root / "Annotations").mkdir()
    for name in NAMES:
        (root / "Annotations" / f"{name}.xml").write_text(xml(name, labels_of(name)))
    table(root)
    (root / "SegmentationClass").mkdir()
    masks(root / "SegmentationClass")


def make_folder(root: Path) -> None:
    photos(root / "images")
    table(root)
    (root / "masks").mkdir()
    masks(root / "masks")


def mask_folder(root: Path) -> Path:
    return root / ("masks" if (root / "masks").exists() else "SegmentationClass")


def other_size(root: Path, chance: random.Random) -> None:
    name = chance.choice(NAMES)
    size = chance.choice([(24, 20), (21, 24), (1, 1)])
    (root / "Annotations" / f"{name}.xml").write_text(xml(name, labels_of(name), size))


def other_file(root: Path, chance: random.Random) -> None:
    name = chance.choice(NAMES)
    (root / "Annotations" / f"{name}.xml").write_text(xml(f"{name}{name}", labels_of(name)))


def other_labels(root: Path, chance: random.Random) -> None:
    name = chance.choice(NAMES)
    labels = chance.choice([(), ("cow",), (*labels_of(name), "cow")])
    (root / "Annotations" / f"{name}.xml").write_text(xml(name, labels))


def other_list(root: Path, chance: random.Random) -> None:
    moved = chance.choice(NAMES[:3])
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("\n".join(name for name in NAMES[:4] if name != moved))
    (lists / "val.txt").write_text("\n".join([*NAMES[4:], moved]))


def in_both(root: Path, chance: random.Random) -> None:
    lists = root / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("\n".join([*NAMES[4:], *chance.sample(NAMES[:4], chance.randint(1, 4))]))
    table_path = root / "tags.csv"
    table_path.write_text(table_path.read_text().replace(",train", "").replace(",val", "").replace(",split", ""))


def binary_mask(root: Path, chance: random.Random) -> None:
    label_HW = np.zeros(SIZE, np.uint8)
    label_HW[: chance.randint(1, SIZE[0])] = 255
    write_mask(mask_folder(root) / f"{chance.choice(NAMES)}.png", label_HW)


def other_mask(root: Path, chance: random.Random) -> None:
    name = chance.choice(NAMES)
    own = CLASSES.index(labels_of(name)[0]) + 1
    label_HW = np.full(SIZE, chance.choice([0, 3 - own]), np.uint8)
    label_HW[: chance.choice([0, 5])] = 3 - own
    write_mask(mask_folder(root) / f"{name}.png", label_HW)


def other_case(root: Path, chance: random.Random) -> None:
    name = chance.choice(NAMES)
    place = next(folder for folder in (root / "images", root / "JPEGImages") if folder.exists())
    shutil.copyfile(place / f"{name}.jpg", place / f"{name.upper()}.jpg")
    with (place / f"{name.upper()}.jpg").open("ab") as file:
        file.write(b"\0")  # no copy
    if (root / "images").exists():
        with (root / "tags.csv").open("a") as file:
            file.write(f"{name.upper()},{labels_of(name)[0]},train\n")


VOC: dict[str, Contradict] = {
    "annotation-size": other_size,
    "annotation-name": other_file,
    "tags-differ": other_labels,
    "split-differs": other_list,
    "split-overlap": in_both,
    "mask-binary": binary_mask,
    "mask-tags": other_mask,
    "name-alike": other_case,
}
FOLDER: dict[str, Contradict] = {kind: VOC[kind] for kind in ("mask-binary", "mask-tags", "name-alike")}


@pytest.mark.parametrize(("make", "kinds"), [(make_voc, VOC), (make_folder, FOLDER)])
def test_every_contradiction_is_told(
    tmp_path: Path, make: Callable[[Path], None], kinds: dict[str, Contradict]
) -> None:
    chance = random.Random(0)
    for number in range(FOLDERS):
        root = tmp_path / str(number)
        make(root)
        kind = chance.choice([None, *kinds])
        if kind is not None:
            kinds[kind](root, chance)
        found = set(inspect_data(root, Silent()).counts()) - {"mask-missing"}  # of an image that was added
        assert found == ({kind} if kind else set()), (number, kind)
        shutil.rmtree(root)


def test_training_says_that_it_validates_on_what_it_learns(tmp_path: Path) -> None:
    from wsss.config import resolve
    from wsss.data.splits import open_training

    class Remarks(Silent):
        said: list[str] = []  # noqa: RUF012

        def say(self, text: str) -> None:
            self.said.append(text)

    root = tmp_path / "voc"
    make_voc(root)
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("a\ne\n")
    remarks = Remarks()
    open_training(resolve(None, (), {"data.root": root}), remarks)
    assert "1 of 2 images of split 'val' are in split 'train' as well (a): figures on it are too good" in remarks.said


def test_a_data_set_opened_in_python_warns_once(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    make_folder(root)
    (root / "tags.json").write_text("{}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = open_dataset(root)
        assert (len(data.records("train")), len(data.records("val"))) == (4, 2)
    assert [str(one.message) for one in caught] == [f"{root / 'tags.json'}: it is not read, since there is tags.csv"]
