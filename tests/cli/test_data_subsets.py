"""`wsss data split`, `sample` and `tags` write data folders and tables that every command reads."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wsss.config import Reading
from wsss.data.dataset import list_splits, open_data
from wsss.data.masks import write_mask

Program = Callable[..., Any]


def tags_by_name(root: Path, split: str) -> dict[str, set[str]]:
    tagged = open_data(root, split=split)
    return {record.name: {tagged.classes[tag] for tag in record.tags} for record in tagged.records}


def everything(root: Path) -> dict[str, set[str]]:
    return {name: tags for split in list_splits(root) for name, tags in tags_by_name(root, split).items()}


def test_a_split_is_divided_and_the_others_stay(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    out = tmp_path / "out"
    words = ("data", "split", scenes, "--split", "train", "--shares", "a=2,b=1", "--masks", "--json")
    done = wsss(*words, "-o", out)
    assert done.status == 0
    report = json.loads(done.out)
    assert report["splits"] == {"a": 15, "b": 9, "val": 8}
    assert list_splits(out) == ("a", "b", "val") or sorted(list_splits(out)) == ["a", "b", "val"]
    assert everything(out) == everything(scenes)
    assert tags_by_name(out, "val") == tags_by_name(scenes, "val")
    of_a = tags_by_name(out, "a")
    assert {name: sum(name in tags for tags in of_a.values()) for name in ("bee", "ladybird")} == {
        name: counts["a"] for name, counts in report["images_by_class"].items()
    }
    theirs, ours = open_data(scenes, split="val"), open_data(out, split="val")
    for one, other in zip(theirs.records, ours.records, strict=True):
        assert (theirs.truth(one) == ours.truth(other)).all()  # type: ignore[union-attr]
    again = wsss(*words, "-o", tmp_path / "again")
    assert (tmp_path / "again" / "tags.csv").read_bytes() == (out / "tags.csv").read_bytes()
    assert json.loads(again.out) | {"output": ""} == report | {"output": ""}
    assert wsss(*words, "--seed", "1", "-o", tmp_path / "other").status == 0
    assert (tmp_path / "other" / "tags.csv").read_bytes() != (out / "tags.csv").read_bytes()


def test_what_cannot_be_divided_is_said(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    words = ("data", "split", scenes, "-o", tmp_path / "out")
    for more, problem in (
        ((), "which of the splits is to be divided?; there are train, val"),
        (("--split", "test"), "no split 'test'; there are train, val"),
        (("--split", "train"), "split 'val' is there already and stays"),
        (("--split", "train", "--shares", "a"), "expected NAME=SHARE"),
        (("--split", "train", "--shares", "a=1,a=2"), "expected NAME=SHARE"),
        (("--split", "train", "--shares", "a=0,b=2"), "expected NAME=SHARE"),
        (("--split", "train", "--shares", "a=1,b=1", "--together", "("), "--together (: "),
        (("--split", "train", "--shares", "a=1,b=1", "--together", "^patient"), "no name of an image matches"),
        (("--split", "train", "--shares", "a=1,b=0.001"), "cannot fill split 'b'"),
    ):
        done = wsss(*words, *more)
        assert done.status == 2, more
        assert problem in done.error()[0], more
        assert done.error()[1]
    assert not (tmp_path / "out").exists()


def test_copies_of_one_photo_stay_together(wsss: Program, tmp_path: Path) -> None:
    """A table without splits; every photo has three augmented copies by Roboflow's names and one of the same bytes."""
    root = tmp_path / "photos"
    root.mkdir()
    rows = [("image", "labels")]
    for number in range(12):
        for copy in range(4):
            noise_HW3 = np.random.default_rng(number + 100 * (copy % 3)).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            name = f"p{number}_jpg.rf.{copy}f.png" if copy < 3 else f"other{number}.png"
            Image.fromarray(noise_HW3).save(root / name)
            rows.append((name, "cat" if number % 3 else "dog"))
    with (root / "tags.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    done = wsss("data", "split", root, "-o", tmp_path / "out")
    assert done.status == 0
    assert "36 images kept in the split of another one of the same photo or group" in done.err
    home = {name: split for split in ("train", "val") for name in tags_by_name(tmp_path / "out", split)}
    assert len(home) == 48
    for number in range(12):
        names = [f"p{number}_jpg.rf.{copy}f" for copy in range(3)] + [f"other{number}"]
        assert len({home[name] for name in names}) == 1
    assert {*home.values()} == {"train", "val"}


def test_a_sample_keeps_splits_classes_and_unknown_tags(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    done = wsss("data", "sample", scenes, "-o", tmp_path / "few", "--images", "8", "--json", "--copy")
    assert json.loads(done.out)["splits"] == {"train": 6, "val": 2}
    few, whole = everything(tmp_path / "few"), everything(scenes)
    assert few.items() <= whole.items()
    assert not any(path.is_symlink() for path in (tmp_path / "few" / "images").iterdir())
    assert wsss("data", "sample", scenes, "-o", tmp_path / "all").status == 0
    assert everything(tmp_path / "all") == whole

    root = tmp_path / "marks"
    shutil.copytree(scenes / "images", root / "images")
    names = sorted(path.name for path in (root / "images").iterdir())
    marks = [("1", "0"), ("?", "1"), ("0", "?")]
    lines = [",".join((name, *marks[i % 3])) for i, name in enumerate(names)]
    (root / "marks.csv").write_text("\n".join(["filename,bee,wasp", *lines]))
    assert wsss("data", "sample", root, "-o", tmp_path / "known", "--images", "12").status == 0
    before, after = open_data(root), open_data(tmp_path / "known")
    facts = {record.name: (record.tags, record.unknown) for record in before.records}
    kept = {record.name: (record.tags, record.unknown) for record in after.records}
    assert len(kept) == 12
    assert kept.items() <= facts.items()
    for name in names:
        write_mask(root / "masks" / f"{name[:-4]}.png", np.ones((2, 2), np.uint8))
    assert wsss("data", "convert", root, "-o", tmp_path / "masks", "--to", "folder", "--masks").status == 0
    after = open_data(tmp_path / "masks")
    assert {record.name: (record.tags, record.unknown) for record in after.records} == facts
    assert all((after.truth(record) == 1).all() for record in after.records)  # type: ignore[union-attr]
    done = wsss("data", "convert", root, "-o", tmp_path / "yolo", "--to", "yolo")
    assert "with unknown tags: the format cannot hold them" in done.err


def test_tags_of_masks(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    table = tmp_path / "tags.csv"
    done = wsss("data", "tags", scenes, "-o", table)
    assert (done.status, done.out) == (0, f"{table}\n")
    assert "tags of 32 masks: supervision for benchmarks, which no person tagged" in done.err
    with table.open(newline="") as file:
        rows = {row["image"]: (set(row["labels"].split(";")) - {""}, row["split"]) for row in csv.DictReader(file)}
    for split in ("train", "val"):
        for name, tags in tags_by_name(scenes, split).items():
            assert rows[f"{name}.jpg"] == (tags, split)
    assert wsss("data", "info", scenes, "--tags", table).status == 0
    done = wsss("data", "tags", scenes, "-o", table)
    assert (done.status, done.error()[0]) == (2, f"{table} exists")

    bare = tmp_path / "bare"
    shutil.copytree(scenes, bare, ignore=shutil.ignore_patterns("tags.csv"))
    (bare / "masks" / "val_00003.png").unlink()
    (bare / "images" / "val_00003.jpg").unlink()
    write_mask(bare / "masks" / "none.png", np.zeros((4, 4), np.uint8))
    done = wsss("data", "tags", bare, "-o", bare / "tags.csv", "--json")
    assert json.loads(done.out) | {"output": ""} == {
        "output": "",
        "tags_from": "masks",
        "images": 31,
        "without_mask": 0,
        "tags_differ": 0,  # there were none
    }
    done = wsss("data", "tags", tmp_path, "-o", tmp_path / "no.csv")
    assert done.status == 3
    (bare / "tags.csv").unlink()
    (bare / "classes.txt").write_text("traffic light\nladybird\n")
    assert wsss("data", "tags", bare, "-o", tmp_path / "two words.csv").status == 0
    (bare / "classes.txt").unlink()
    again = open_data(bare, reading=Reading(tags=tmp_path / "two words.csv"))
    assert again.classes == ("ladybird", "traffic light")
