"""HEIC and AVIF where Pillow reads them, and images whose names have no ending."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from wsss.data.dataset import open_data, open_unlabelled
from wsss.data.facts import examine_image
from wsss.data.findings import BadData
from wsss.data.images import EXTRA, UnreadableImage, decode_image, read_image, suffix_of
from wsss.data.index import scan_images
from wsss.data.photographs import find_images

EXIF_TURN = 6


def photo() -> NDArray[np.uint8]:
    ramp_HW3 = np.zeros((48, 64, 3), np.uint8)
    ramp_HW3[:, :, 0] = np.arange(64) * 4
    ramp_HW3[:, :, 1] = np.arange(48)[:, None] * 5
    return ramp_HW3


def encoded(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo()).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_a_photo_of_a_phone(tmp_path: Path, kind: str) -> None:
    if kind not in EXTRA:
        pytest.skip(f"Pillow reads no {kind} here")
    content = encoded(kind, quality=95)
    path = tmp_path / f"p{EXTRA[kind][0]}"
    path.write_bytes(content)
    assert np.abs(read_image(path).astype(int) - photo()).mean() < 4
    assert suffix_of(content) == EXTRA[kind][0]
    facts = examine_image(content, path)
    assert (facts.size, facts.format, facts.bits) == ((48, 64), kind, 8)
    assert [record.name for record in open_unlabelled(tmp_path)] == ["p"]
    exif = Image.Exif()
    exif[0x0112] = EXIF_TURN
    turned = encoded(kind, quality=95, exif=exif.tobytes())
    facts = examine_image(turned, path)
    assert decode_image(turned, path).shape[:2] == facts.size
    for length in (20, 60, len(content) // 2):
        with pytest.raises(UnreadableImage):
            examine_image(content[:length], path)


def test_without_the_plugin_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsss.data import images, photographs

    for module in (images, photographs):
        monkeypatch.setattr(module, "IMAGE_SUFFIXES", (".jpg", ".png"))
    monkeypatch.setattr(images, "EXTRA", {})
    (tmp_path / "p.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    Image.fromarray(photo()).save(tmp_path / "q.png")
    said: list[BadData] = []
    assert [*find_images(tmp_path, note=said.append).files] == ["q"]
    assert "1 file ending in .heic: not read; pip install 'wsss[heif]', or convert" in str(said[0])
    with pytest.raises(UnreadableImage, match="heic, a kind of HEIF"):
        examine_image((tmp_path / "p.heic").read_bytes(), tmp_path / "p.heic")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_an_image_without_an_ending_is_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "IMG_0001").write_bytes(encoded(kind))
    (tmp_path / "photos" / "notes").write_text("no image")
    (tmp_path / "photos" / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "photos" / "pipe")
    found = find_images(tmp_path / "photos")
    assert found.files == {"IMG_0001": "IMG_0001"}
    assert [record.name for record in open_unlabelled(tmp_path / "photos" / "IMG_0001")] == ["IMG_0001"]
    (tmp_path / "photos" / "tags.csv").write_text("image,labels\nIMG_0001,cat\n")
    tagged = open_data(tmp_path / "photos")
    assert scan_images(tagged.records).sizes() == [(48, 64)]
    assert read_image(tagged.records[0].image).shape == (48, 64, 3)


@pytest.mark.parametrize("name", ["b.jpg ", "b.jpg_large", "b.JPG.crdownload", "b.dat"])
def test_images_of_other_endings_are_named(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    (tmp_path / name).write_bytes((tmp_path / "a.jpg").read_bytes())
    (tmp_path / "notes.bin").write_bytes(b"text")
    said: list[str] = []
    found = find_images(tmp_path, note=lambda error: said.append(error.problem))
    assert [*found.files] == ["a"]
    assert said == [
        f"{tmp_path / name}: 1 file holds an image but has another ending: not read; rename what is to be read"
    ]


def test_endings_of_browsers_are_read(tmp_path: Path) -> None:
    for number, ending in enumerate((".jfif", ".JPE")):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{number}{ending}", format="JPEG")
    assert [*find_images(tmp_path).files] == ["0", "1"]
