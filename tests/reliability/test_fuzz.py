"""Readers of untrusted files, tested with noise and damaged files: they read the file or raise a WsssError.

``WSSS_FUZZ_EXAMPLES=5000 pytest tests/reliability/test_fuzz.py`` tries 5000 files for each reader.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as safetensors

from wsss.config import Config, Reading, resolve, to_yaml
from wsss.data.check import inspect_data
from wsss.data.dataset import list_splits, open_data
from wsss.data.facts import examine_image
from wsss.data.findings import BadData
from wsss.data.images import image_size, read_content, read_image
from wsss.data.masks import PALETTE, read_mask
from wsss.data.readers.annotations import xml_labels
from wsss.errors import WsssError
from wsss.models.backbone import Backbone
from wsss.models.checkpoint import load_network, save_checkpoint
from wsss.models.network import build_network
from wsss.outputs.manifest import read_manifest
from wsss.reporting import Silent

EXAMPLES = int(os.environ.get("WSSS_FUZZ_EXAMPLES", "20"))
SECONDS = 20.0
"""Limit of seconds for reading a file of a few kilobytes, for a machine with other load."""
MEMORY = 2 * 2**30
"""Limit of bytes that the peak memory of the process may grow: a little more than the largest image that is read."""
VIT = {"patch_size": 4, "img_size": 8, "embed_dim": 4, "depth": 1, "num_heads": 1}
BACKBONE = "vit_tiny_patch16_224"


@dataclass(frozen=True, slots=True)
class Reader:
    """A function that reads a file, its name, and valid contents; ``seal`` makes a file of a damaged content."""

    read: Callable[[Path], object]
    file: str
    good: tuple[bytes, ...]
    seal: Callable[[bytes], bytes] = bytes


def picture(size: tuple[int, int] = (12, 16), mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def encoded(form: str, image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def mask() -> bytes:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) % 3)
    image.putpalette(PALETTE.tobytes())
    return encoded("PNG", image)


def open_folder(path: Path) -> None:
    """Open a data folder, by the rules of training and by those of ``wsss data check``."""
    inspect_data(path.parent, Silent())
    for split in list_splits(path.parent):
        for record in open_data(path.parent, split=split).records:
            assert path.parent in record.image.parents


def open_voc(path: Path) -> None:
    open_folder(path.parents[2] / "file")


def look_at(path: Path) -> None:
    """Check an image; one that passes is read and must have the size that its header gives."""
    facts = examine_image(read_content(path), path)
    assert read_image(path).shape == (*facts.size, 3)
    assert image_size(path) == facts.size


def load_weights(path: Path) -> None:
    Backbone(BACKBONE, overrides=VIT).load(str(path))


def checkpoint(folder: Path) -> bytes:
    path = folder / "good.pt"
    network = build_network(BACKBONE, ["cat", "dog"], decoder=False, vit=VIT)
    config = resolve(None, (), {"model.backbone": BACKBONE, "model.vit": VIT})
    save_checkpoint(path, network, config, training={"step": 3, "optimizer": {"state": {0: torch.ones(2)}, "lr": 0.1}})
    return path.read_bytes()


def sealed_pickle(archive: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """The pickle in a file of torch.save, and a function that makes such a file, with right checksums, of another."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    place = next(name for name in parts if name.endswith("/data.pkl"))

    def seal(content: bytes) -> bytes:
        sealed = io.BytesIO()
        with zipfile.ZipFile(sealed, "w") as file:
            for name, part in parts.items():
                file.writestr(name, content if name == place else part)
        return sealed.getvalue()

    return parts[place], seal


def pickled(read: Callable[[Path], object], file: str, archive: bytes) -> Reader:
    content, seal = sealed_pickle(archive)
    return Reader(read, file, (content,), seal)


def sealed_png(content: bytes) -> bytes:
    """A PNG whose chunks have their checksums corrected, as far as chunks can be found."""
    sealed, at = content[:8], 8
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        if end + 4 > len(content):
            break
        sealed += content[at:end] + zlib.crc32(content[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return sealed + content[at:]


def weights() -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = Backbone(BACKBONE, overrides=VIT).vit.state_dict()
    return state


def pth() -> bytes:
    file = io.BytesIO()
    torch.save({"model": weights(), "epoch": 3}, file)
    return file.getvalue()


XML = b"""<?xml version="1.0" encoding="UTF-8"?><annotation><size><width>8</width></size>
<object><name>cat</name><part><name>head</name></part></object>
<object><name>dog &amp; co</name></object></annotation>"""
YAML = b"""model: {backbone: deit_tiny_patch16_224, vit: {depth: 3}}
maps:
  scales: [&a 224, *a]
  flip: yes
run: {seed: 0x10}"""
CSV = b'image,labels,split\na.png,cat,train\nb,"dog;cat",val\nstreet/c.png,,train\n'
JSON = b'{"a": ["cat"], "b.png": ["dog", "cat"], "street/c": []}'
SPLIT = b"a\n/JPEGImages/b.png /SegmentationClass/b.png\nstreet/c\n"

READERS: dict[str, Callable[[Path], Reader]] = {
    "tags.csv": lambda folder: Reader(open_folder, "tags.csv", (CSV, CSV.replace(b",", b"\t"), b"\xef\xbb\xbf" + CSV)),
    "tags.json": lambda folder: Reader(open_folder, "tags.json", (JSON,)),
    "classes": lambda folder: Reader(open_folder, "classes.txt", (b"cat\ndog\n",)),
    "split": lambda folder: Reader(open_voc, "ImageSets/Segmentation/train.txt", (SPLIT,)),
    "xml": lambda folder: Reader(xml_labels, "a.xml", (XML,)),
    "yaml": lambda folder: Reader(resolve, "mine.yaml", (YAML, to_yaml(Config()).encode())),
    "checkpoint": lambda folder: Reader(load_network, "last.pt", (checkpoint(folder),)),
    "checkpoint-pickle": lambda folder: pickled(load_network, "last.pt", checkpoint(folder)),
    "pth-pickle": lambda folder: pickled(load_weights, "weights.pth", pth()),
    "pth": lambda folder: Reader(load_weights, "weights.pth", (pth(),)),
    "safetensors": lambda folder: Reader(load_weights, "weights.safetensors", (safetensors(weights()),)),
    "manifest": lambda folder: Reader(lambda path: read_manifest(path.parent), "manifest.json", (b'{"counts": {}}',)),
    "mask": lambda folder: Reader(read_mask, "mask.png", (mask(),), sealed_png),
    "png": lambda folder: Reader(
        look_at, "a.png", (encoded("PNG", picture()), encoded("PNG", picture(mode="P"))), sealed_png
    ),
    "jpeg": lambda folder: Reader(look_at, "a.jpg", (encoded("JPEG", picture((24, 40)), exif=exif()),)),
    "tiff": lambda folder: Reader(look_at, "a.tif", (encoded("TIFF", picture(), compression="tiff_lzw"),)),
    "webp": lambda folder: Reader(look_at, "a.webp", (encoded("WEBP", picture()),)),
    "bmp": lambda folder: Reader(look_at, "a.bmp", (encoded("BMP", picture()),)),
}


def exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """A valid file with some random damage."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 6))):
        at, other = (draw(st.integers(0, len(content))) for _ in range(2))
        first, last = min(at, other), max(at, other)
        match draw(st.sampled_from(["flip", "flip", "set", "set", "number", "cut", "drop", "twice", "noise"])):
            case "flip" if at < len(content):
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if at < len(content):
                content[at] = draw(st.sampled_from([0, 1, 0x20, 0x22, 0x2C, 0x7F, 0x80, 0xFF, *b"*&:[{<(.qcRQ"]))
            case "number":
                value = draw(st.sampled_from([0, 1, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1]))
                content[at : at + 4] = value.to_bytes(4, draw(st.sampled_from(["big", "little"])))
            case "cut":
                del content[last:]
            case "drop":
                del content[first : min(last, first + 64)]
            case "twice":
                content[first:first] = content[first : min(last, first + 256)] * draw(st.integers(1, 8))
            case "noise":
                content[at:at] = draw(st.binary(max_size=24))
    return bytes(content)


def files(good: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Mostly damaged files; some noise, alone or after the beginning of a valid file."""
    one = st.sampled_from(good)
    noise = st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass"))
    return one.flatmap(damaged) | one.flatmap(damaged) | noise | st.builds(lambda a, b: a[:20] + b, one, noise)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A data folder for each reader, of both layouts, with three images."""

    def make(reader: str) -> Path:
        root = tmp_path_factory.mktemp("fuzz") / reader
        base = root / ("JPEGImages" if reader == "split" else "images")
        (base / "street").mkdir(parents=True)
        for name in ("a", "b", "street/c"):
            picture().save(base / f"{name}.png")
        if reader == "split":
            (root / "ImageSets" / "Segmentation").mkdir(parents=True)
        if reader != "tags.json":
            (root / "tags.csv").write_bytes(CSV)
        return root

    return make


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Check that the peak memory grows by less than the limit, whatever size a small file claims."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MEMORY


def refusal(reader: Reader, path: Path) -> WsssError | None:
    """The WsssError of a reader, or None if it reads the file; other exceptions are not caught."""
    try:
        reader.read(path)
    except WsssError as error:
        return error
    return None


@pytest.mark.usefixtures("little_memory")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", READERS)
def test_only_our_errors_come_out(name: str, place: Callable[[str], Path]) -> None:
    root = place(name)
    reader = READERS[name](root)
    path = root / reader.file
    for good in reader.good:
        path.write_bytes(reader.seal(good))
        reader.read(path)
    outcomes = {"read": 0, "refused": 0}

    @settings(
        max_examples=EXAMPLES,
        deadline=timedelta(seconds=SECONDS),
        suppress_health_check=[*HealthCheck],
        database=None,
    )
    @given(files(reader.good))
    def feed(content: bytes) -> None:
        path.write_bytes(reader.seal(content))
        error = refusal(reader, path)
        outcomes["read" if error is None else "refused"] += 1
        if error is not None:
            assert error.exit_status in (2, 3)
            assert len(error.problem) < 3000, "the error message is too long"
            assert not isinstance(error, BadData) or error.findings

    feed()
    assert outcomes["refused"] > EXAMPLES // 10
    print(name, json.dumps(outcomes))


TREES = Path(__file__).parents[1] / "formats"
ANNOTATIONS = (".json", ".jsonl", ".csv", ".xml", ".txt", ".yaml", ".tar")
NO_DAMAGE = ("EXPECTED.json", "README.dataset.txt", "README.roboflow.txt")


def options_of(tree: Path) -> dict[str, Any]:
    """Keys of the config that a fixture needs to be read, as the options in its ``EXPECTED.json`` tell them."""
    words = json.loads((tree / "EXPECTED.json").read_text(encoding="utf-8")).get("options", [])
    told = ["--columns", "image=Datei,labels=Klassen,split=Aufteilung"] if tree.name == "table_excel" else words
    keys = ["keep" if word == "--class" else word.removeprefix("--").replace("-", "_") for word in told[::2]]
    many = {name for name, field in Reading.model_fields.items() if "tuple" in str(field.annotation)}
    return {f"data.{key}": word.split(",") if key in many else word for key, word in zip(keys, told[1::2], strict=True)}


def is_refused(tree: Path) -> bool:
    return "refuse" in json.loads((tree / "EXPECTED.json").read_text(encoding="utf-8"))


FIXTURES = [
    path.parent.relative_to(TREES).as_posix()
    for path in sorted(TREES.rglob("EXPECTED.json"))
    if path.parent.name != "outputs" and not is_refused(path.parent)
]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FIXTURES)
def test_only_our_errors_come_out_of_a_damaged_export(name: str, tmp_path: Path) -> None:
    """Every format: one of its files is damaged, then splits, tags and masks are read, and the folder is checked."""
    root = tmp_path / "tree"
    shutil.copytree(TREES / name, root)
    reading = resolve(flags=options_of(TREES / name)).data
    kept = {
        path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file() and path.name not in NO_DAMAGE
    }
    texts = [
        path for path in kept if path.suffix.lower() in (".json", ".jsonl", ".csv", ".xml", ".txt", ".yaml", ".tar")
    ]
    paths = texts or [*kept]

    def look() -> None:
        for split in list_splits(root, reading):
            tagged = open_data(root, split=split, reading=reading, need_tags=False)
            for record in tagged.records:
                assert root in record.image.parents
                tagged.truth(record)

    look()

    @settings(
        max_examples=EXAMPLES,
        deadline=timedelta(seconds=SECONDS),
        suppress_health_check=[*HealthCheck],
        database=None,
    )
    @given(st.sampled_from(paths).flatmap(lambda path: st.tuples(st.just(path), files((kept[path],)))))
    def feed(damage: tuple[Path, bytes]) -> None:
        path, content = damage
        path.write_bytes(content)
        for work in (look, lambda: inspect_data(root, Silent(), reading=reading)):
            error = refusal(Reader(lambda path, work=work: work(), "", ()), path)
            assert error is None or (error.exit_status in (2, 3) and len(error.problem) < 3000), error
        path.write_bytes(kept[path])

    feed()
    look()
