"""One table a split beside its images: Roboflow's ``_classes.csv``, and the metadata of Hugging Face's imagefolder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from wsss.config import Reading
from wsss.data.findings import Note
from wsss.data.photographs import Photographs
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource, below
from wsss.data.readers.reader import Options, Reader
from wsss.data.readers.table import CLASSES_CSV, METADATA, parse_table, table_images, table_source
from wsss.data.readers.table_rows import first_rows
from wsss.data.readers.text import read_text
from wsss.data.walking import is_file, is_folder, names_in
from wsss.errors import UsageError
from wsss.plain_yaml import load_yaml


def _in_folders(root: Path, names: Sequence[str]) -> list[Path]:
    """Tables of these names at the root and in the folders directly below it."""
    folders = [root, *(root / name for name in names_in(root) if is_folder(root / name))]
    return [folder / name for folder in folders for name in names if is_file(folder / name)]


def _sniff_folders(names: Sequence[str], root: Path, reading: Reading) -> str | None:
    tables = _in_folders(root, names)
    for path in tables:
        rows = first_rows(path, reading.encoding)
        if rows is not None and any(name.lower() in ("filename", "file_name") for name in rows.header):
            return f"{path.relative_to(root)}"
    return None


def _open_folders(names: Sequence[str], root: Path, options: Options) -> AnnotatedSource:
    """The tables of all splits as one source; their classes are the columns of all."""
    images: list[AnnotatedImage] = []
    declared: dict[str, None] = {}
    numbers = class_names_of_card(root / "README.md")
    tables = _in_folders(root, names)
    for path in tables:
        split = ONLY_SPLIT if path.parent == root else path.parent.name
        found, classes = parse_table(path, options, split=split, base=below(path, root), names=numbers)
        images += found
        declared |= dict.fromkeys(classes or ())
    return table_source(root, options, images, tuple(declared) or None, tables[0] if len(tables) == 1 else root)


def class_names_of_card(path: Path) -> tuple[str, ...] | None:
    """The class names in the YAML head of a Hugging Face data set card, by number; None where it has none."""
    if not is_file(path):
        return None
    parts = read_text(path).split("---\n", 2)
    try:
        head = load_yaml(parts[1], "README.md") if len(parts) == 3 and not parts[0].strip() else None
    except (UsageError, ValueError):
        return None
    names = _class_label(head)
    if isinstance(names, dict):
        numbered = {int(key): name for key, name in names.items() if str(key).isdecimal()}
        names = (
            [numbered[number] for number in sorted(numbered)] if [*sorted(numbered)] == [*range(len(names))] else None
        )
    values = names
    return tuple(map(str, values)) if isinstance(values, list) and values else None


def _class_label(value: Any, depth: int = 0) -> Any:
    if depth > 20 or not isinstance(value, dict | list):
        return None
    if isinstance(value, dict) and isinstance(value.get("class_label"), dict):
        return value["class_label"].get("names")
    inner = value.values() if isinstance(value, dict) else value
    return next((found for one in inner if (found := _class_label(one, depth + 1))), None)


def _photographs_beside_masks(root: Path, note: Note) -> Photographs:
    found = table_images(root, note)
    return replace(found, files={name: file for name, file in found.files.items() if not name.endswith("_mask")})


ROBOFLOW_CLASSES = Reader(
    name="roboflow-classes",
    looks_for=CLASSES_CSV,
    sniff=partial(_sniff_folders, (CLASSES_CSV,)),
    open=partial(_open_folders, (CLASSES_CSV,)),
    photographs=_photographs_beside_masks,
    lists_all=False,
)
IMAGEFOLDER = Reader(
    name="imagefolder",
    looks_for=" or ".join(METADATA),
    sniff=partial(_sniff_folders, METADATA),
    open=partial(_open_folders, METADATA),
    photographs=table_images,
    lists_all=False,
)
