"""One table of bad inputs: what `wsss data check` says of each, and what a training or a scoring makes of it."""

from __future__ import annotations

import csv
import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wsss.config import AugmentSection, DataSection, Reading
from wsss.data.augment import TrainingImages
from wsss.data.check import inspect_data, write_list
from wsss.data.findings import KINDS, Finding, Place
from wsss.data.images import MAX_BYTES
from wsss.data.lessons import LESSONS
from wsss.data.masks import write_mask
from wsss.data.records import TaggedSet
from wsss.data.splits import open_split
from wsss.errors import DataError, UsageError
from wsss.inference.evaluate import evaluate_labels
from wsss.reporting import Silent

Outcome = Literal["refused", "skipped", "accepted", "scoring", "saliency"]
"""The set is refused when it is opened; the image is skipped; all is read; training reads all, but scoring the masks
or reading the saliency maps is refused."""
Build = Callable[[Path], object]

HEIGHT, WIDTH = 20, 24
NAMES = ("a", "b", "c", "d")
BAD_LIMIT = 0.5


def photo(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(form: str, image: Image.Image | None = None, share: float = 1.0, **options: Any) -> bytes:
    """An image file, or the first part of one."""
    file = io.BytesIO()
    (image or photo(9)).save(file, form, **options)
    return file.getvalue()[: int(share * len(file.getvalue()))]


def deep(form: str, image_HW3: NDArray[Any]) -> bytes:
    """An image file whose samples have more than 8 bits."""
    return bytes(cv2.imencode(f".{form}", image_HW3)[1].tobytes())


def png(width: int, height: int, pixels: bytes = b"", *, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG of any header; its pixels may be missing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def patched(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def huge_jpeg() -> bytes:
    """A few hundred bytes that claim 65,500 x 65,500 pixels."""
    content = encoded("JPEG")
    return patched(content, content.index(b"\xff\xc0") + 5, struct.pack(">HH", 65500, 65500))


def turned_jpeg(height: int, width: int) -> bytes:
    """An orientation of four bytes, of which OpenCV reads the first two."""
    entry = struct.pack(">HHHIII", 1, 0x0112, 4, 1, 6, 0)
    return encoded("JPEG", photo(9, height, width), exif=b"Exif\0\0MM\0*" + struct.pack(">I", 8) + entry)


def folder(root: Path) -> None:
    """Four photos with a table; two classes."""
    root.mkdir()
    for seed, name in enumerate(NAMES):
        photo(seed).save(root / f"{name}.png")
    tags(root)


def tags(
    root: Path, content: str | bytes = "image,labels\na,cat\nb,dog\nc,cat;dog\nd,\n", name: str = "tags.csv"
) -> None:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def voc(root: Path) -> None:
    """The same photos in the layout of PASCAL VOC, with annotations."""
    for part in ("JPEGImages", "ImageSets/Segmentation", "Annotations"):
        (root / part).mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        photo(seed).save(root / "JPEGImages" / f"{name}.png")
    for name, label in zip(NAMES, ("cat", "dog", "cat", "dog"), strict=True):
        annotation(root, name, f"<annotation><object><name>{label}</name></object></annotation>")
    (root / "classes.txt").write_text("cat\ndog\n")
    split(root, "a\nb\nc\nd\n")


def annotation(root: Path, name: str, content: str | bytes) -> None:
    path = root / "Annotations" / f"{name}.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def split(root: Path, content: str | bytes) -> None:
    path = root / "ImageSets" / "Segmentation" / "train.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One bad input.

    Attributes:
        name: of the row.
        build: makes it, in a data folder that was good.
        kind: of the finding; "" where nothing is wrong after all.
        what: pattern of the finding, and of the error or remark of a training.
        outcome: what training or scoring makes of it.
        layout: of the data folder.
        tags_from: where tags come from.
    """

    name: str
    build: Build
    kind: str
    what: str
    outcome: Outcome
    layout: Literal["folder", "voc"] = "folder"
    tags_from: Literal["auto", "masks"] = "auto"


def image(name: str, content: Callable[[], bytes] | bytes, kind: str, what: str, file: str = "a.png") -> Row:
    """The image a is this file instead: skipped, or taken with a warning."""

    def build(root: Path) -> None:
        (root / "a.png").unlink()
        (root / file).write_bytes(content if isinstance(content, bytes) else content())

    return Row(
        name=name,
        build=build,
        kind=kind,
        what=what,
        outcome="skipped" if KINDS[kind] == "error" else "accepted",
    )


def table(name: str, content: str | bytes, kind: str, what: str = "", file: str = "tags.csv") -> Row:
    """The table is this text: refused, or taken with a warning or without."""

    def build(root: Path) -> None:
        (root / "tags.csv").unlink()
        tags(root, content, file)

    refused = bool(kind) and KINDS[kind] == "error"
    return Row(name=name, build=build, kind=kind, what=what, outcome="refused" if refused else "accepted")


def classes(name: str, content: str | bytes, kind: str, what: str) -> Row:
    """The class names are these."""
    outcome: Outcome = "refused" if KINDS[kind] == "error" else "accepted"
    return Row(name=name, build=lambda root: tags(root, content, "classes.txt"), kind=kind, what=what, outcome=outcome)


def voc_row(name: str, build: Build, kind: str, what: str) -> Row:
    """A folder in the layout of VOC that is refused."""
    return Row(name=name, build=build, kind=kind, what=what, outcome="refused", layout="voc")


def unused_layer() -> Row:
    """One more mask than there are images."""

    def build(root: Path) -> None:
        for one in (*NAMES, "no image"):
            write_mask(root / "masks" / f"{one}.png", np.full((HEIGHT, WIDTH), 1, dtype=np.uint8))

    row = layer("mask-unused", None, "mask-unused", r"1 of 5 files is the mask of no image \(no image\)")
    return replace(row, build=build)


def layer(name: str, content: Callable[[], bytes] | None, kind: str, what: str) -> Row:
    """The mask or saliency map of the image a is this file, or missing; all others are good."""
    saliency = kind.startswith("saliency")

    def build(root: Path) -> None:
        place = root / ("Saliency" if saliency else "masks")
        for one in NAMES:
            write_mask(place / f"{one}.png", np.full((HEIGHT, WIDTH), 200 if saliency else 1, dtype=np.uint8))
        (place / "a.png").unlink()
        if content is not None:
            (place / "a.png").write_bytes(content())

    scored: Outcome = "scoring" if KINDS[kind] == "error" else "accepted"
    outcome: Outcome = "saliency" if saliency and KINDS[kind] == "error" else scored
    return Row(name=name, build=build, kind=kind, what=what, outcome=outcome)


def turned_layer(kind: str) -> Row:
    """The image a is stored upside down; its mask or saliency map is of its size."""
    row = layer(f"{kind}-by-180-degrees", lambda: encoded("PNG", label_map(HEIGHT, WIDTH)), kind, "EXIF orientation 3")

    def build(root: Path) -> None:
        row.build(root)
        exif = Image.Exif()
        exif[0x0112] = 3
        photo(0).save(root / "a.png", exif=exif)

    return replace(row, build=build)


def other(name: str, build: Build, kind: str, what: str, outcome: Outcome) -> Row:
    return Row(name=name, build=build, kind=kind, what=what, outcome=outcome)


def small_saliency(root: Path) -> None:
    for one in NAMES:
        write_mask(root / "Saliency" / f"{one}.png", np.full((HEIGHT, WIDTH), 1, dtype=np.uint8))


def label_map(*size: int, value: int = 1) -> Image.Image:
    return Image.fromarray(np.full(size, value, dtype=np.uint8))


def far_link(root: Path) -> None:
    (root / "a.png").unlink()
    (root / "a.png").symlink_to(root / "nowhere.png")


def circular_link(root: Path) -> None:
    (root / "a.png").unlink()
    (root / "a.png").symlink_to(root / "a.png")


def pipe(root: Path) -> None:
    (root / "a.png").unlink()
    os.mkfifo(root / "a.png")


def sparse(root: Path) -> None:
    with (root / "a.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # takes no room on the disk


def directory_for_annotation(root: Path) -> None:
    (root / "Annotations" / "a.xml").unlink()
    (root / "Annotations" / "a.xml").mkdir()


def thumbnail(place: Path) -> None:
    (place / "a.png").mkdir(parents=True)
    photo(5).save(place / "a.png" / "thumb.png")


def masks_of_many_classes(root: Path) -> None:
    for name, value in zip(NAMES, (1, 9, 2, 1), strict=True):
        write_mask(root / "SegmentationClass" / f"{name}.png", np.full((HEIGHT, WIDTH), value, dtype=np.uint8))


GREY_16 = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 99
RGB_16 = np.dstack([GREY_16, GREY_16 + 7, GREY_16 + 9])
UNITS = GREY_16.astype(np.float32) / 65535

IMAGES = [
    image("jpeg-cut", lambda: encoded("JPEG", share=0.7), "image-truncated", "truncated", "a.jpg"),
    image(
        "jpeg-progressive-cut",
        lambda: encoded("JPEG", share=0.7, progressive=True),
        "image-truncated",
        "trunc",
        "a.jpg",
    ),
    image("jpeg-cmyk-cut", lambda: encoded("JPEG", photo().convert("CMYK"), 0.8), "image-truncated", "trunc", "a.jpg"),
    image("jpeg-without-end", lambda: encoded("JPEG")[:-2], "image-truncated", "truncated", "a.jpg"),
    image("png-cut", lambda: encoded("PNG", share=0.6), "image-truncated", "truncated"),
    image("png-without-pixels", png(8, 8), "image-truncated", "truncated"),
    image("bmp-cut", lambda: encoded("BMP", share=0.6), "image-truncated", "truncated", "a.bmp"),
    image("tiff-cut", lambda: encoded("TIFF", share=0.6), "image-truncated", "truncated", "a.tif"),
    image("webp-cut", lambda: encoded("WEBP", share=0.6), "image-truncated", "truncated", "a.webp"),
    image("zero-bytes", b"", "image-empty", "it is empty"),
    image("jpeg-cut-in-header", lambda: encoded("JPEG")[:12], "image-truncated", "(?i)truncated", "a.jpg"),
    image("jpeg-cut-in-markers", lambda: encoded("JPEG")[:4], "image-broken", "this JPEG is damaged", "a.jpg"),
    image("png-cut-in-header", lambda: encoded("PNG")[:12], "image-broken", "this PNG is damaged"),
    image("png-of-no-width", png(0, 5), "image-broken", "this PNG is damaged"),
    image(
        "png-wrong-checksum", lambda: patched(encoded("PNG"), 29, b"\1\2\3\4"), "image-broken", "this PNG is damaged"
    ),
    image(
        "jpeg-zeros", lambda: patched(encoded("JPEG"), 400, bytes(900)), "image-broken", "cannot load|broken", "a.jpg"
    ),
    image("tiff-without-size", b"II*\0\x08\0\0\0\0\0\0\0\0\0", "image-broken", "this TIFF is damaged", "a.tif"),
    image("bomb-png", png(20000, 20000), "image-huge", "400000000 pixels.*at most 178956970"),
    image("bomb-png-widest", png(2**31 - 1, 2**31 - 1), "image-huge", "pixels.*at most"),
    image("bomb-jpeg", huge_jpeg, "image-huge", "4290250000 pixels", "a.jpg"),
    image("text", b"not an image", "image-unknown", "neither JPEG, PNG, BMP, TIFF, WEBP", "a.jpg"),
    image("html", b"<!DOCTYPE html><title>404</title>", "image-unknown", "but HTML, SVG or XML", "a.jpg"),
    image("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image-unknown", "but HTML, SVG or XML"),
    image("pdf", b"%PDF-1.7", "image-unknown", "but a PDF", "a.jpg"),
    image("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n", "image-unknown", "but PostScript", "a.jpg"),
    image("zip", b"PK\3\4....", "image-unknown", "but a zip archive"),
    image("git-lfs", b"version https://git-lfs.github.com/spec/v1\n", "image-unknown", "git lfs pull", "a.jpg"),
    image("gif-called-jpg", lambda: encoded("GIF"), "image-unknown", "but a GIF", "a.jpg"),
    image("jpeg2000-called-jpg", lambda: encoded("JPEG2000"), "image-unknown", "but JPEG 2000", "a.jpg"),
    image("heic-called-jpg", b"\0\0\0\x18ftypheic\0\0\0\0", "image-unknown", "but heic, a kind of HEIF", "a.jpg"),
    image("photoshop", b"8BPS\0\1", "image-unknown", "but a Photoshop file"),
    image("icon-called-png", lambda: encoded("ICO"), "image-unknown", "neither"),
    image("targa-called-png", lambda: encoded("TGA"), "image-unknown", "neither"),
    image("array-called-png", b"\x93NUMPY\1\0", "image-unknown", "neither"),
    image("tiff-of-floats", lambda: encoded("TIFF", Image.fromarray(UNITS)), "image-undecodable", "mode F", "a.tif"),
    image(
        "tiff-of-32-bits",
        lambda: encoded("TIFF", Image.fromarray(GREY_16.astype(np.int32))),
        "image-undecodable",
        "OpenCV cannot decode this TIFF of mode I",
        "a.tif",
    ),
    image("orientation-of-four-bytes", lambda: turned_jpeg(16, 40), "image-turned", "disagree about its size", "a.jpg"),
    image("orientation-of-a-near-square", lambda: turned_jpeg(20, 24), "image-turned", "disagree about", "a.jpg"),
    other("sparse-file-of-2-gib", sparse, "image-huge", "2147483649 bytes", "skipped"),
    other("pipe", pipe, "image-irregular", "no regular file", "skipped"),
    other("link-to-nothing", far_link, "image-missing", "a link to .*, which is not there", "skipped"),
    other("link-to-itself", circular_link, "image-broken", "symbolic links", "skipped"),
    image("png-16-bit", lambda: deep("png", RGB_16), "image-16-bit", "16 bits"),
    image("png-16-bit-grey", lambda: deep("png", GREY_16), "image-16-bit", "16 bits"),
    image("tiff-16-bit", lambda: deep("tif", RGB_16), "image-16-bit", "16 bits", "a.tif"),
    image("jpeg-cmyk", lambda: encoded("JPEG", photo().convert("CMYK")), "image-cmyk", "into RGB", "a.jpg"),
    image("tiff-cmyk", lambda: encoded("TIFF", photo().convert("CMYK")), "image-cmyk", "into RGB", "a.tif"),
    image(
        "png-animated",
        lambda: encoded("PNG", save_all=True, append_images=[photo(7)]),
        "image-animated",
        "2 frames or pages; one",
    ),
    image(
        "webp-animated",
        lambda: encoded("WEBP", save_all=True, append_images=[photo(7)]),
        "image-animated",
        "2 frames",
        "a.webp",
    ),
    image(
        "tiff-of-two-pages",
        lambda: encoded("TIFF", save_all=True, append_images=[photo(7, 8, 8)]),
        "image-animated",
        "2 frames",
        "a.tif",
    ),
    image("png-called-jpg", lambda: encoded("PNG"), "image-suffix", "a PNG file; it is read as such", "a.jpg"),
    image("jpeg-called-tif", lambda: encoded("JPEG"), "image-suffix", "a JPEG file", "a.TIF"),
    image("webp-called-jpeg", lambda: encoded("WEBP"), "image-suffix", "a WEBP file", "a.jpeg"),
    image("transparent", lambda: encoded("PNG", photo().convert("RGBA").rotate(45)), "image-alpha", "transparent"),
    image(
        "transparent-colour", lambda: encoded("PNG", transparency=photo(9).getpixel((0, 0))), "image-alpha", "transp"
    ),
    image("transparent-palette", lambda: encoded("PNG", photo().quantize(8), transparency=0), "image-alpha", "transp"),
    image("one-pixel", lambda: encoded("PNG", photo(9, 1, 1)), "image-small", "1x1 .*smaller than a patch of 16"),
    image("smaller-than-a-patch", lambda: encoded("PNG", photo(9, 15, 40)), "image-small", "40x15 "),
    image("very-wide", lambda: encoded("PNG", photo(9, 16, 400)), "image-narrow", "400x16 .*25 times"),
    image("very-high", lambda: encoded("PNG", photo(9, 700, 17)), "image-narrow", "17x700 .*41 times"),
    image("copy", lambda: encoded("PNG", photo(3)), "image-copy", "the same bytes as a"),
]

TABLES = [
    table("csv-with-bom", b"\xef\xbb\xbfimage,labels\na,cat\nb,dog\nc,cat\nd,\n", ""),
    table("csv-of-windows", "image,labels\r\na,cat\r\nb,dog\r\nc,cat\r\nd,\r\n", ""),
    table("csv-of-old-macs", "image,labels\ra,cat\rb,dog\rc,cat\rd,\r", ""),
    table("csv-stray-spaces", " image , labels \n a.png , cat ; dog \n\n b ,dog \n c, cat;\n d , \n", ""),
    table(
        "csv-latin-1", "image,labels\na,cat\nb,dög\nc,cat\nd,\n".encode("latin-1"), "text-encoding", "not UTF-8.*0xf6"
    ),
    table("csv-utf-16", "image,labels\na,cat\n".encode("utf-16"), "text-encoding", "not UTF-8"),
    table("csv-utf-16-without-bom", "image,labels\na,cat\n".encode("utf-16-le"), "text-encoding", "zero byte"),
    table("csv-empty", "", "table-header", "the header must be"),
    table("csv-header-alone", "image,labels\n", "table-empty", "it lists no image"),
    table("csv-without-header", "a,cat\nb,dog\n", "table-header", "got 'a,cat'"),
    table("csv-other-header", "file,words\na,cat\n", "table-header", "got 'file,words'"),
    table("csv-sep-line", "sep=;\nimage;labels\na;cat\n", "table-header", "got 'sep=;'"),
    table("csv-too-many-fields", "image,labels\na,cat,dog\nb,dog\nc,cat\nd,\n", "table-fields", "3 fields.*has 2"),
    table("csv-too-few-fields", "image,labels\na\nb,dog\nc,cat\nd,\n", "table-fields", "1 fields"),
    table("csv-open-quote", 'image,labels\na,"cat\nb,dog\n', "table-format", "not CSV"),
    table("csv-no-split", "image,labels,split\na,cat,\nb,dog,t\nc,cat,t\nd,,t\n", "table-split", "no split for 'a'"),
    table("csv-twice", "image,labels\na,cat\nb,dog\na,dog\nc,cat\nd,\n", "image-twice", "'a' is listed before.*line 2"),
    table("csv-twice-by-suffix", "image,labels\na,cat\nb,dog\n./a.png,dog\nc,cat\nd,\n", "image-twice", "before"),
    table("csv-path-climbs", "image,labels\n../a,cat\na,cat\nb,dog\nc,cat\nd,\n", "path-outside", "'../a' leaves"),
    table("csv-path-absolute", "image,labels\n/etc/x.png,cat\na,cat\nb,dog\nc,cat\nd,\n", "path-outside", "leaves the"),
    table("csv-path-drive", "image,labels\nC:\\x.png,cat\na,cat\nb,dog\nc,cat\nd,\n", "path-outside", "leaves the"),
    table("csv-path-empty", "image,labels\n,cat\na,cat\nb,dog\nc,cat\nd,\n", "path-outside", "names nothing"),
    table("csv-missing-image", "image,labels\ngone,cat\na,cat\nb,dog\nc,cat\nd,\n", "image-missing", "not in .*photos"),
    table("csv-other-suffix", "image,labels\na.jpg,cat\nb,dog\nc,cat\nd,\n", "image-missing", "not in .*photos"),
    table("csv-untagged-image", "image,labels\na,cat\nb,dog\nc,cat\n", "image-untagged", "no tags for"),
    table("csv-ambiguous", "image,labels\na,cat dog\nb,dog;cat\nc,cat\nd,\n", "tag-ambiguous", "'cat dog' may be one"),
    table("csv-joined", "image,labels\na,cat\nb,cat cow\nc,dog;cat\nd,\n", "class-joined", "mean 'cat;cow'.*line 4"),
    table("csv-no-label", "image,labels\na,\nb,\nc,\nd,\n", "tags-none", "no image has a label"),
    table("csv-case", "image,labels\na,cat\nb,Cat\nc,dog\nd,\n", "class-alike", "'Cat' and 'cat' are two"),
    table("csv-unseen-letter", "image,labels\na,cat\nb,cat\u200b\nc,dog\nd,\n", "class-alike", "are two classes"),
    table("csv-dict", 'image,labels\na,"{""cat"": 1}"\nb,dog\nc,cat\nd,\n', "label-notation", "no list of names"),
    table("csv-nan", "image,labels\na,cat\nb,dog\nc,nan\nd,NaN\n", "label-nothing", "is read as no label"),
    table("csv-half-a-list", "image,labels\na,['cat\nb,dog\nc,cat\nd,\n", "class-cut", "half of a pair of brackets"),
    table("csv-numbers", "image,labels\na,1\nb,1.0\nc,2\nd,\n", "class-alike", "'1' and '1.0' are two"),
    table("csv-split-nan", "image,labels,split\na,cat,nan\nb,dog,t\nc,cat,t\nd,,t\n", "table-split", "no split for"),
    table("csv-unseen-in-a-name", "image,labels\na\u200b,cat\nb,dog\nc,cat\nd,\n", "name-form", "u200b|differ"),
    table("json-cut", '{"a": ["cat"]', "table-format", "not JSON", "tags.json"),
    table("json-array", '["a"]', "table-format", "expected one object", "tags.json"),
    table("json-deep", "[" * 10**5, "table-format", "not JSON", "tags.json"),
    table("json-huge-number", '{"a": ' + "1" * 5000 + "}", "table-format", "not JSON", "tags.json"),
    table("json-string", '{"a": "cat", "b": ["dog"], "c": [], "d": []}', "table-fields", "'a' must have", "tags.json"),
    table("json-number", '{"a": [1], "b": ["dog"], "c": [], "d": []}', "table-fields", "must have", "tags.json"),
    table(
        "json-twice", '{"a": ["cat"], "a": [], "b": [], "c": [], "d": []}', "image-twice", "listed before", "tags.json"
    ),
    table(
        "json-path-climbs", '{"../x": [], "a": ["cat"], "b": [], "c": [], "d": []}', "path-outside", "x", "tags.json"
    ),
    table("json-empty", "{}", "table-empty", "it lists no image", "tags.json"),
    classes("class-unknown", "cat\n", "tag-unknown", "'dog'.* of "),
    classes("class-misspelt", "cat\ndoge\n", "tag-unknown", r"'dog' \(did you mean 'doge'\?\) of "),
    classes("class-in-capitals", "Cat\ndog\n", "tag-unknown", r"'cat' \(did you mean 'Cat'\?\) of "),
    classes("class-never-there", "cat\ncow\ndog\n", "class-unused", "split 'all' has the class 'cow'"),
    classes("class-twice", "cat\ndog\ncat\n", "class-twice", r"listed twice \(cat\)"),
    classes("class-background", "background\ncat\ndog\n", "class-background", "'background' is a class"),
    classes("classes-empty", "\n", "class-count", "0 classes"),
    classes("classes-too-many", "\n".join(map(str, range(255))), "class-count", "255 classes"),
    classes("classes-latin-1", "cat\nd\xf6g\n".encode("latin-1"), "text-encoding", "not UTF-8"),
    other("two-suffixes", lambda root: photo(5).save(root / "a.jpg"), "name-twice", "a.jpg and a.png", "refused"),
    other("gif-beside", lambda root: photo(5).save(root / "x.gif"), "file-ignored", "ending in .gif", "accepted"),
]

FOLDERS = [
    other("two-tables", lambda root: tags(root, '{"a": []}', "tags.json"), "table-second", "is not read", "accepted"),
    other(
        "disk-station", lambda root: thumbnail(root / "@eaDir"), "folder-left-out", "disk station.*it is", "accepted"
    ),
    other("wastebasket", lambda root: thumbnail(root / "$RECYCLE.BIN"), "folder-left-out", "left out", "accepted"),
    other("circle", lambda root: (root / "x").symlink_to(root), "folder-left-out", "a link back to", "accepted"),
    other("link-lost", lambda root: (root / "x").symlink_to(root / "y"), "link-lost", "leads to nothing", "accepted"),
]

VOC = [
    voc_row("split-empty", lambda root: split(root, ""), "split-empty", "the split is empty"),
    voc_row("split-blank", lambda root: split(root, " \n\n"), "split-empty", "the split is empty"),
    voc_row(
        "split-twice", lambda root: split(root, "a\nb\nc\nd\na\n"), "image-twice", "'a' is listed before, at line 1"
    ),
    voc_row("split-missing-image", lambda root: split(root, "a\nb\nc\ngone\n"), "image-missing", "not in .*JPEGImages"),
    voc_row("split-climbs", lambda root: split(root, "a\nb\nc\n../d\n"), "path-outside", "'../d' leaves"),
    voc_row("split-latin-1", lambda root: split(root, b"a\nb\n\xe9\n"), "text-encoding", "not UTF-8"),
    voc_row(
        "no-split",
        lambda root: (root / "ImageSets" / "Segmentation" / "train.txt").unlink(),
        "split-missing",
        "no split list",
    ),
    voc_row("xml-cut", lambda root: annotation(root, "a", "<annotation><obj"), "annotation-unreadable", "unreadable"),
    voc_row("xml-empty", lambda root: annotation(root, "a", ""), "annotation-unreadable", "no element found"),
    voc_row(
        "xml-entities",
        lambda root: annotation(root, "a", "<!DOCTYPE a [<!ENTITY b 'c'>]><a/>"),
        "annotation-unreadable",
        "document type",
    ),
    voc_row(
        "xml-encoding",
        lambda root: annotation(root, "a", "<?xml version='1.0' encoding='klingon'?><a/>"),
        "annotation-unreadable",
        "unknown encoding",
    ),
    voc_row("xml-folder", directory_for_annotation, "annotation-unreadable", "unreadable annotation"),
    voc_row("xml-missing", lambda root: (root / "Annotations" / "a.xml").unlink(), "image-untagged", "no tags for"),
    voc_row(
        "xml-unknown-class",
        lambda root: annotation(root, "b", "<a><object><name>dogs</name></object></a>"),
        "tag-unknown",
        r"'dogs' \(did you mean 'dog'\?\) of b",
    ),
    voc_row("no-annotations", lambda root: (root / "Annotations").rename(root / "xml"), "image-untagged", "no tags"),
    Row(
        name="tags-from-masks-of-other-classes",
        build=masks_of_many_classes,
        kind="mask-class",
        what="class index 9",
        outcome="refused",
        layout="voc",
        tags_from="masks",
    ),
]

LAYERS = [
    layer("mask-size", lambda: encoded("PNG", label_map(7, 9)), "mask-size", "9x7, its image 24x20|7 x 9"),
    layer("mask-turned", lambda: encoded("PNG", label_map(WIDTH, HEIGHT)), "mask-size", "20x24, its|24 x 20"),
    turned_layer("mask-turned"),
    turned_layer("saliency-turned"),
    layer("mask-class", lambda: encoded("PNG", label_map(HEIGHT, WIDTH, value=3)), "mask-class", "class index 3"),
    layer("mask-colours", lambda: encoded("PNG"), "mask-format", "mode RGB"),
    layer("mask-1-bit", lambda: encoded("PNG", label_map(HEIGHT, WIDTH).convert("1")), "mask-format", "mode 1"),
    layer("mask-4-bit-grey", lambda: png(2, 1, b"\0\x12", depth=4, colour=0), "mask-format", "L;4"),
    layer("mask-16-bit", lambda: deep("png", GREY_16), "mask-format", "mode I"),
    layer("mask-jpeg", lambda: encoded("JPEG", label_map(HEIGHT, WIDTH)), "mask-format", "a JPEG file"),
    layer("mask-cut", lambda: encoded("PNG", label_map(HEIGHT, WIDTH), 0.7), "mask-unreadable", "unreadable mask"),
    layer("mask-empty", lambda: b"", "mask-unreadable", "it is empty"),
    layer("mask-huge", lambda: png(20000, 20000, colour=0), "mask-unreadable", "at most 178956970"),
    unused_layer(),
    layer("mask-missing", None, "mask-missing", r"1 of 4 images of split 'all' have no mask \(a\)"),
    layer("saliency-missing", None, "saliency-missing", "no such file"),
    layer("saliency-size", lambda: encoded("PNG", label_map(7, 9)), "saliency-size", "9x7, its image 24x20"),
    layer("saliency-colours", lambda: encoded("PNG"), "saliency-format", "mode RGB"),
    layer("saliency-16-bit", lambda: deep("png", GREY_16), "saliency-format", "mode I"),
    layer("saliency-jpeg", lambda: encoded("JPEG", label_map(HEIGHT, WIDTH)), "saliency-format", "a JPEG file"),
    layer("saliency-cut", lambda: encoded("PNG", label_map(HEIGHT, WIDTH), 0.7), "saliency-unreadable", "unreadable"),
    other("saliency-of-0-and-1", small_saliency, "saliency-range", "largest value of all maps is 1", "accepted"),
    layer("saliency-empty", lambda: b"", "saliency-unreadable", "it is empty"),
]

ROWS = [*IMAGES, *TABLES, *FOLDERS, *VOC, *LAYERS]

CONTRADICTIONS = (
    *("annotation-size", "annotation-name", "split-overlap", "split-differs", "name-alike", "tags-differ"),
    *("mask-binary", "mask-tags"),
)
"""Kinds that take two sources; tests/data/test_contradictions.py has them."""
SAID = ("folder-left-out", "link-lost", "file-ignored", "name-form", "label-nothing", "table-second", "image-16-bit")
"""Warnings of the readers, which a training says as well."""


CONSEQUENCES = {
    **dict.fromkeys(
        ("csv-too-many-fields", "csv-too-few-fields", "csv-no-split", "csv-split-nan", "csv-dict"), "image-untagged"
    ),
    **dict.fromkeys(("json-string", "json-number"), "image-untagged"),
    **dict.fromkeys(("class-misspelt", "class-in-capitals", "class-twice", "class-background"), "class-unused"),
    **{row.name: "mask-tags" for row in LAYERS if row.kind.startswith("mask")},  # all are cats
}
"""What else is found because of the fault, by row."""


ANNOTATED = {
    *("tag-digits", "shard-broken", "shard-member"),
    *("cell-blank", "table-several"),
    *("class-none", "class-ignored", "class-left-out", "image-unlabelled", "image-ambiguous"),
    *("shape-unreadable", "shape-size", "annotation-several", "annotators-differ", "tag-field"),
    *("shape-unreadable", "shape-size", "crowd-read", "folder-absent", "label-file-missing"),
}
"""Kinds of annotation files; tests/data/readers has them."""


OF_SETS = {*LESSONS, "mask-order", "class-order", "class-spreadsheet", "class-no-object", "mask-palette"}
"""Kinds of larger sets and of the names of their classes; tests/data/test_lessons.py and its neighbours have them."""
OF_SPREADSHEETS = {"label-spaces", "column-unread", "table-columns", "class-letters", "mask-elsewhere"}
"""Kinds that tests/data/test_spreadsheets.py has."""


def test_the_rows_are_many_and_distinct() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 60
    unseen = set(KINDS) - {row.kind for row in ROWS}
    elsewhere = (
        {"text-unreadable", "folder-unreadable", "split-alike", *CONTRADICTIONS} | ANNOTATED | OF_SETS | OF_SPREADSHEETS
    )
    assert unseen == elsewhere, "every kind has a row; these take what may not be read, or several splits"


class Remarks(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def built(row: Row, tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (folder if row.layout == "folder" else voc)(root)
    row.build(root)
    return root


def opened(row: Row, root: Path, remarks: Remarks) -> TaggedSet:
    """The set as a training opens it."""
    return open_split(DataSection(root=root, bad_limit=BAD_LIMIT, tags_from=row.tags_from), None, remarks)


def read_all(tagged: TaggedSet, saliency: Path | None = None) -> None:
    samples = TrainingImages(tagged, AugmentSection(size=16), seed=0, saliency=saliency)
    for index in range(len(samples)):
        assert samples[0, index]["image"].shape == (3, 16, 16)


in_rows = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])


@pytest.mark.parametrize("layout", [folder, voc])
def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path, layout: Build) -> None:
    layout(tmp_path / "photos")
    inspection = inspect_data(tmp_path / "photos", Silent())
    assert (inspection.findings, inspection.images) == ((), 4)


@in_rows
def test_check_finds_it_and_nothing_else(row: Row, tmp_path: Path) -> None:
    root = built(row, tmp_path)
    saliency = root / "Saliency" if row.kind.startswith("saliency") else None
    inspection = inspect_data(root, Silent(), reading=Reading(tags_from=row.tags_from), saliency=saliency)
    assert set(inspection.counts()) - {CONSEQUENCES.get(row.name)} == ({row.kind} if row.kind else set())
    for finding in inspection.findings:
        assert finding.where.startswith(str(root))
        assert finding.kind != row.kind or re.search(row.what, finding.what)
    assert (inspection.count("error") == 0) == (row.outcome == "accepted")


@in_rows
def test_training_and_scoring_say_the_same(row: Row, tmp_path: Path) -> None:
    root, remarks = built(row, tmp_path), Remarks()
    if row.outcome == "refused":
        with pytest.raises(DataError, match=row.what) as caught:
            opened(row, root, remarks)
        assert "\n" not in caught.value.problem
        assert caught.value.fix
        return
    tagged = opened(row, root, remarks)
    read_all(tagged)
    if row.outcome == "skipped":
        assert [record.name for record in tagged.records] == ["b", "c", "d"]
        remark, count = remarks.said
        assert remark.startswith("skipped a: ")
        assert count == f"split {tagged.split}: 1 of 4 images skipped"
        assert re.search(row.what, remark)
        return
    assert len(tagged) == 4
    if row.kind in SAID:
        assert re.search(row.what, "".join(remarks.said))
    assert len(remarks.said) == (row.kind in SAID)
    if row.outcome in ("scoring", "saliency"):
        with pytest.raises(DataError, match=row.what) as caught:
            score(tagged, tmp_path) if row.outcome == "scoring" else read_all(tagged, root / "Saliency")
        assert str(root) in caught.value.problem


def score(tagged: TaggedSet, folder: Path) -> None:
    for record in tagged.records:
        write_mask(folder / "labels" / f"{record.name}.png", np.zeros((HEIGHT, WIDTH), dtype=np.uint8))
    evaluate_labels(folder / "labels", tagged)


def test_too_many_bad_images_stop_a_training(tmp_path: Path) -> None:
    folder(tmp_path / "photos")
    for name in ("a", "b"):
        (tmp_path / "photos" / f"{name}.png").write_bytes(b"")
    data = DataSection(root=tmp_path / "photos", bad_limit=0.49)
    with pytest.raises(DataError, match=r"2 of 4 images are unreadable \(a: it is empty; b: it is empty\)") as caught:
        open_split(data, None, Silent())
    assert caught.value.fix.startswith("--set data.bad_limit=0.51  # skips them")
    assert len(open_split(data.model_copy(update={"bad_limit": 0.5}), None, Silent())) == 2


def test_every_fault_is_found_at_once(tmp_path: Path) -> None:
    """Faults of the table, the classes, the images and the masks do not hide one another."""
    root = tmp_path / "photos"
    folder(root)
    tags(root, "image,labels\n../x,cat\na,cat\na,dog\nb,dgo\nc,cat;dog\ngone,cat\n")
    (root / "classes.txt").write_text("cat\ndog\ncow\n")
    (root / "a.png").write_bytes(b"")
    (root / "d.png").write_bytes(b"text")
    write_mask(root / "masks" / "b.png", np.full((3, 4), 7, dtype=np.uint8))
    inspection = inspect_data(root, Silent())
    assert inspection.splits == {"all": 3}
    assert inspection.images == 4
    assert [(one.kind, one.where.removeprefix(f"{root}/")) for one in inspection.findings] == [
        ("path-outside", "tags.csv:2"),
        ("image-twice", "tags.csv:4"),
        ("image-missing", "tags.csv:7"),
        ("image-untagged", "tags.csv"),
        ("tag-unknown", "tags.csv:5"),
        ("image-empty", "a.png"),
        ("image-unknown", "d.png"),
        ("mask-size", "masks/b.png"),
        ("mask-class", "masks/b.png"),
        ("class-unused", "classes.txt"),
        ("mask-missing", "masks"),
    ]


def test_images_are_checked_though_no_table_can_be_read(tmp_path: Path) -> None:
    for layout in (folder, voc):
        root = tmp_path / layout.__name__
        layout(root)
        tags(root, "nonsense")
        images = root / "JPEGImages" if layout is voc else root
        (images / "a.png").write_bytes(b"")
        inspection = inspect_data(root, Silent())
        assert inspection.counts() == {"table-header": 1, "image-empty": 1}
        assert (inspection.splits, inspection.images) == ({}, 4)


def test_one_split_alone(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    folder(root)
    tags(root, "image,labels,split\na,cat,train\nb,dog,train\nc,cat;dog,val\nd,dog,val\n")
    (root / "a.png").write_bytes(b"")
    assert inspect_data(root, Silent(), split="train").counts() == {"image-empty": 1}
    good = inspect_data(root, Silent(), split="val")
    assert (good.findings, good.splits, good.images) == ((), {"val": 2}, 2)
    with pytest.raises(UsageError, match="did you mean 'val'"):
        inspect_data(root, Silent(), split="vall")


def test_splits_that_may_be_one(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    folder(root)
    tags(root, "image,labels,split\na,cat,train\nb,dog,Train\nc,cat;dog,train \nd,dog,val\n")
    (finding,) = (one for one in inspect_data(root, Silent()).findings if one.kind == "split-alike")
    assert finding.what == "'train' and 'Train' are two splits, but may be meant to be one"


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    folder(root)
    for file in (".hidden.png", "@eaDir/a.png", "notes.txt", "masks/x.txt", "Thumbs.db"):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).touch()
    left_out = inspect_data(root, Silent(), masks=False).to_json()["left_out"]
    assert left_out == {"hidden": 1, "by machines": 2, "no photographs": 1, "of another ending": 2}


def test_classes_are_counted_in_every_split_and_in_all(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    folder(root)
    tags(root, "image,labels,split\na,cat,train\nb,dog,train\nc,cat;dog,val\nd,dog,val\n")
    inspection = inspect_data(root, Silent())
    assert inspection.classes == {"cat": 2, "dog": 3} == inspection.to_json()["classes"]
    assert inspection.classes_by_split == {"train": {"cat": 1, "dog": 1}, "val": {"cat": 1, "dog": 2}}
    voc(tmp_path / "voc")
    (tmp_path / "voc" / "ImageSets" / "Segmentation" / "some.txt").write_text("a\nb\n")
    overlapping = inspect_data(tmp_path / "voc", Silent())
    assert overlapping.classes == {"cat": 2, "dog": 2} == overlapping.classes_by_split["train"]
    assert overlapping.classes_by_split["some"] == {"cat": 1, "dog": 1}


def test_a_turned_mask_is_told_how_images_are_read(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    folder(root)
    for name, size in zip(NAMES, ((WIDTH, HEIGHT), (7, 9), (HEIGHT, WIDTH), (HEIGHT, WIDTH)), strict=True):
        write_mask(root / "masks" / f"{name}.png", np.zeros(size, dtype=np.uint8))
    turned, small = (one for one in inspect_data(root, Silent()).findings if one.kind == "mask-size")
    assert turned.what == "20x24, its image 24x20 (width x height); images are read upright, as their EXIF asks"
    assert small.what == "9x7, its image 24x20 (width x height)"


def test_odd_class_names_are_no_matter_where_a_file_tells_them(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    folder(root)
    tags(root, "image,labels\na,cat\nb,cat cow\nc,dog;cat\nd,\n")
    (root / "classes.txt").write_text("cat\ncat cow\ndog\n")
    assert inspect_data(root, Silent()).findings == ()


def test_masks_are_opened_only_where_they_are_wanted(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    folder(root)
    (root / "masks").mkdir()
    (root / "masks" / "a.png").write_bytes(b"no mask")
    assert inspect_data(root, Silent(), masks=False).findings == ()
    assert inspect_data(root, Silent()).counts() == {"mask-unreadable": 1, "mask-missing": 1}


def test_a_list_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def findings() -> Iterator[Finding]:
        yield Finding("image-empty", Place(tmp_path / "a,b.png"), 'it is "empty"')
        yield Finding(
            "tag-unknown", Place(tmp_path / "tags.csv", 4), "caf\udce9", "rename it"
        )  # a file name that is not UTF-8

    write_list(tmp_path / "new" / "list.csv", findings())
    with (tmp_path / "new" / "list.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["severity", "kind", "where", "what", "mend"],
            ["error", "image-empty", str(tmp_path / "a,b.png"), 'it is "empty"', ""],
            ["error", "tag-unknown", f"{tmp_path / 'tags.csv'}:4", "caf\\udce9", "rename it"],
        ]

    def broken() -> Iterator[Finding]:
        yield from findings()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_list(tmp_path / "list.csv", broken())
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_saliency_map_of_no_image(tmp_path: Path) -> None:
    root, maps = tmp_path / "photos", tmp_path / "maps"
    folder(root)
    for one in (*NAMES, "other"):
        write_mask(maps / f"{one}.png", np.full((HEIGHT, WIDTH), 1, dtype=np.uint8))
    found = inspect_data(root, Silent(), saliency=maps, masks=False).findings
    unused = [one for one in found if one.kind == "mask-unused"]
    assert [one.what for one in unused] == ["1 of 5 files is the saliency map of no image (other)"]
