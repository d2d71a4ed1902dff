"""The page of each format in data/formats: its example is written to a folder and read as the page says."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

import wsss
from wsss.cli.main import app
from wsss.data.masks import encode_mask
from wsss.data.readers.registry import READERS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what readers guess or leave out

PAGES = Path(__file__).parents[3] / "data" / "formats"
SIZE = (6, 8)


def example(page: Path) -> tuple[dict[str, bytes], list[str], dict[str, str], str]:
    """The files of the example, its options, what it is read as, and the shard that holds the files or ""."""
    text = page.read_text(encoding="utf-8").split("```example\n", 1)[1].split("```", 1)[0]
    tree, _, told = text.partition("read as:\n")
    files: dict[str, bytes] = {}
    options: list[str] = []
    shard, path = "", ""
    for line in tree.splitlines():
        key, _, rest = line.partition(": ")
        if key == "options":
            options = rest.split()
        elif key == "shard":
            shard = rest
        elif key == "image":
            files[rest], path = photo(rest), ""
        elif key == "values":
            name, *values = rest.split()
            files[name] = encode_mask(
                np.array([[int(value) for value in values] + [0] * (8 - len(values))] * 6, np.uint8)
            )
        elif key == "colours":
            name, *colours = rest.split()
            tones = [[int(number) for number in colour.split(",")] for colour in colours]
            files[name] = encoded(np.array([tones + [[0, 0, 0]] * (8 - len(tones))] * 6, np.uint8))
        elif line.startswith("--- "):
            path = line[4:]
            files[path] = b""
        elif path:
            files[path] += f"{line}\n".encode()
    return files, options, dict(line.partition(":")[::2] for line in told.splitlines()), shard


def photo(name: str) -> bytes:
    return encoded(np.full((*SIZE, 3), len(name), np.uint8), "JPEG" if name.endswith("jpg") else "PNG")


def encoded(image_HW3: Any, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_HW3).save(file, kind)
    return file.getvalue()


def write(root: Path, files: dict[str, bytes], shard: str) -> None:
    if not shard:
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return
    with tarfile.open(root / shard, "w") as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            tar.addfile(entry, io.BytesIO(files[name]))


def as_keys(options: list[str]) -> dict[str, Any]:
    """Options of the command line as keys of the Python interface."""
    known = {flag: one.name for one in get_command(app).commands["data"].commands["check"].params for flag in one.opts}  # type: ignore[attr-defined]
    pairs = ((known[flag], value) for flag, value in zip(options[::2], options[1::2], strict=True))
    return {name: value.split(",") if name == "classes" else value for name, value in pairs}


@pytest.mark.parametrize("name", READERS)
def test_the_example_of_a_page_is_read_as_it_says(tmp_path: Path, name: str) -> None:
    page = PAGES / f"{name}.md"
    assert page.read_text(encoding="utf-8").splitlines()[0].endswith(f"`--format {name}`")
    files, options, told, shard = example(page)
    write(tmp_path, files, shard)
    dataset = wsss.open_dataset(tmp_path, **as_keys(options))
    found = {}
    for split in dataset.splits:
        tagged = dataset.split(split)
        assert tagged.format == name
        for record in tagged.records:
            found[f"{split}/{record.name}"] = {tagged.classes[tag] for tag in record.tags}
    assert found == {key: set(words.split()) for key, words in told.items()}


def test_every_page_is_of_a_format() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {*READERS}
