from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from wsss.data.images import MANIFEST, UnreadableImage, image_size, list_images, read_image
from wsss.errors import DataError
from wsss.outputs.manifest import write_manifest

RED, GREEN = (200, 30, 60), (10, 220, 90)


def halves(height: int = 20, width: int = 30) -> NDArray[np.uint8]:
    """Red on the left, green on the right."""
    image_HW3 = np.empty((height, width, 3), dtype=np.uint8)
    image_HW3[:, : width // 2], image_HW3[:, width // 2 :] = RED, GREEN
    return image_HW3


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_lossless_files_keep_every_value(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(halves()).save(path)
    image_HW3 = read_image(path)
    assert image_HW3.dtype == np.uint8
    np.testing.assert_array_equal(image_HW3, halves())


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_files_keep_the_colours(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(halves()).save(path, quality=95)
    assert np.abs(read_image(path)[5, 5] - np.array(RED)).max() <= 6
    assert np.abs(read_image(path)[5, 25] - np.array(GREEN)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_orientation_is_applied_and_the_size_agrees(tmp_path: Path, suffix: str, orientation: int) -> None:
    path, exif = tmp_path / f"a.{suffix}", Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(halves()).save(path, exif=exif)
    image_HW3 = read_image(path)
    assert image_size(path) == image_HW3.shape[:2]
    with Image.open(path) as image:
        upright_HW3 = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert image_HW3.shape == upright_HW3.shape
    assert np.abs(image_HW3.astype(int) - upright_HW3).max() <= (3 if suffix == "jpg" else 0)


def test_an_orientation_only_pillow_knows_turns_neither(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(halves()).save(path, xmp=b'<rdf:Description tiff:Orientation="6"/>')
    assert image_size(path) == (20, 30) == read_image(path).shape[:2]


def saved(**kinds: Image.Image) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("image", kinds.values(), ids=kinds.keys())


@saved(
    grey=Image.fromarray(halves()[..., 0]),
    sixteen=Image.fromarray(halves()[..., 0].astype(np.uint16) * 256 + 17),
    grey_alpha=Image.fromarray(halves()[..., 0]).convert("LA"),
)
def test_grey_becomes_three_equal_channels(tmp_path: Path, image: Image.Image) -> None:
    image.save(tmp_path / "a.png")
    image_HW3 = read_image(tmp_path / "a.png")
    assert image_HW3[5, 5].tolist() == [RED[0]] * 3
    assert image_HW3[5, 25].tolist() == [GREEN[0]] * 3


def test_sixteen_bit_colours_keep_their_upper_bits(tmp_path: Path) -> None:
    deep_HW3 = halves().astype(np.uint16) * 256 + 99
    cv2.imwrite(str(tmp_path / "a.png"), deep_HW3[..., ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), halves())


def test_alpha_is_dropped(tmp_path: Path) -> None:
    alpha_HW = np.zeros((20, 30), dtype=np.uint8)
    Image.fromarray(np.dstack([halves(), alpha_HW])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), halves())


def test_palette_photos_are_colours(tmp_path: Path) -> None:
    Image.fromarray(halves()).quantize(4).save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), halves())


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.fromarray(halves()).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    image_HW3 = read_image(tmp_path / "a.jpg")
    assert np.abs(image_HW3[5, 5] - np.array(RED)).max() <= 6
    assert np.abs(image_HW3[5, 25] - np.array(GREEN)).max() <= 6


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0 broken"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(UnreadableImage) as caught:
            read(path)
        assert str(path) in caught.value.problem
        assert str(path) in caught.value.fix


@pytest.mark.parametrize("read", [read_image, image_size])
def test_a_missing_file_is_named(tmp_path: Path, read: Any) -> None:
    with pytest.raises(UnreadableImage, match=r"gone\.jpg"):
        read(tmp_path / "gone.jpg")


def test_a_path_in_any_script(tmp_path: Path) -> None:
    Image.fromarray(halves()).save(tmp_path / "ça 日本.png")
    assert read_image(tmp_path / "ça 日本.png").shape == (20, 30, 3)


def test_the_size_is_read_without_decoding(tmp_path: Path) -> None:
    encoded = io.BytesIO()
    Image.fromarray(halves(400, 300)).save(encoded, "JPEG")
    (tmp_path / "a.jpg").write_bytes(encoded.getvalue()[:700])  # the header and no pixel
    assert image_size(tmp_path / "a.jpg") == (400, 300)


def test_images_are_listed_by_name(tmp_path: Path) -> None:
    for file in ("b.JPG", "sub/a.png", "sub/.hidden.png", ".cache/x.png", "masks/b.png", "sub/masks/m.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "notes.txt").touch()
    listed = list_images(tmp_path, skip=("masks",))
    assert list(listed.items()) == [
        ("b", "b.JPG"),
        ("sub/a", "sub/a.png"),
        ("sub/masks/m", "sub/masks/m.png"),
    ]


def test_what_was_made_of_images_is_none(tmp_path: Path) -> None:
    for file in ("a.png", "masks/b.png", "masks/labels/sub/a.png", "masks/overlays/a.jpg", "far/scores/a.png"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert len(list_images(tmp_path)) == 5
    write_manifest(tmp_path / "masks", {}, {})
    (tmp_path / "far" / MANIFEST).write_text('{"wsss": "0.1.0"}')
    assert list(list_images(tmp_path)) == ["a", "masks/b"]
    assert list(list_images(tmp_path / "masks")) == ["b"]


@pytest.mark.parametrize("content", ["", "{", '["wsss"]', '{"labels": []}', "[" * 10**5, json.dumps("wsss")])
def test_the_manifest_of_another_program_hides_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.png").touch()
    (tmp_path / MANIFEST).write_text(content)
    assert list(list_images(tmp_path)) == ["labels/a"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    real, root = tmp_path / "real", tmp_path / "root"
    real.mkdir()
    root.mkdir()
    (real / "a.png").touch()
    (root / "linked").symlink_to(real, target_is_directory=True)
    (real / "back").symlink_to(root, target_is_directory=True)
    assert list_images(root) == {"linked/a": "linked/a.png"}


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"a\.jpg and a\.png"):
        list_images(tmp_path)
