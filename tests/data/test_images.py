from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, PngImagePlugin

from wsss.data import images
from wsss.data.images import MANIFEST, UnreadableImage, image_size, read_image
from wsss.data.photographs import list_images
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


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_a_transparent_pixel_shows_its_colour_in_every_format(tmp_path: Path, form: str) -> None:
    """OpenCV multiplies the colours of TIFF files by their alpha."""
    image = Image.fromarray(np.dstack([halves(), np.full((20, 30), 60, np.uint8)]))
    image.save(tmp_path / "a", format=form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(read_image(tmp_path / "a"), halves())


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


def noise(height: int, width: int, *channels: int, dtype: Any = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (height, width, *channels), dtype=dtype)


def stored(image: Image.Image, form: str, **options: Any) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, form, **options)
    return encoded.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PHOTO = Image.fromarray(noise(40, 60, 3))
CONTENTS = {
    **{form: stored(PHOTO, form) for form in ("JPEG", "PNG", "BMP", "TIFF", "WEBP")},
    **{f"{form}-grey": stored(PHOTO.convert("L"), form) for form in ("JPEG", "PNG", "BMP", "TIFF", "WEBP")},
    **{f"{form}-turned": stored(PHOTO, form, exif=turned()) for form in ("JPEG", "PNG", "TIFF", "WEBP")},
    **{f"{form}-alpha": stored(Image.fromarray(noise(40, 60, 4)), form) for form in ("PNG", "WEBP")},
    **{f"{form}-palette": stored(PHOTO.quantize(9), form) for form in ("PNG", "BMP", "TIFF")},
    **{f"JPEG-{mode}": stored(PHOTO.convert(mode), "JPEG") for mode in ("CMYK", "YCbCr")},
    "JPEG-progressive": stored(PHOTO, "JPEG", progressive=True),
    "PNG-grey-alpha": stored(PHOTO.convert("LA"), "PNG"),
    "PNG-1": stored(PHOTO.convert("1"), "PNG"),
    "PNG-16": cv2.imencode(".png", noise(40, 60, 3, dtype=np.uint16))[1].tobytes(),
    "PNG-16-grey": cv2.imencode(".png", noise(40, 60, dtype=np.uint16))[1].tobytes(),
    "PNG-16-alpha": cv2.imencode(".png", noise(40, 60, 4, dtype=np.uint16))[1].tobytes(),
    "TIFF-16": cv2.imencode(".tif", noise(40, 60, 3, dtype=np.uint16))[1].tobytes(),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_decoding_to_rgb_gives_the_same_bits(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    image_HW3 = images.decode_image(content, Path("photo"))
    bgr_HW3 = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(image_HW3, bgr_HW3[..., ::-1])
    monkeypatch.setattr(images, "COLOUR_RGB", None)  # as in older versions of OpenCV
    np.testing.assert_array_equal(images.decode_image(content, Path("photo")), image_HW3)


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS.keys())
def test_the_size_of_every_kind_is_read_from_its_header(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(content)
    assert image_size(tmp_path / "photo") == read_image(tmp_path / "photo").shape[:2]


def chunk_moved(content: bytes, kind: bytes, before: bytes) -> bytes:
    """A PNG with a chunk elsewhere."""
    start = content.index(kind) - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    rest = content[:start] + content[end:]
    place = rest.index(before) - 4
    return rest[:place] + content[start:end] + rest[place:]


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_the_size_of_a_png_decodes_nothing(tmp_path: Path, before: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its orientation may stand behind the pixels, where Pillow finds it only by decoding them."""
    content = stored(PHOTO, "PNG", exif=turned())
    (tmp_path / "a.png").write_bytes(chunk_moved(content, b"eXIf", before))
    assert read_image(tmp_path / "a.png").shape == (60, 40, 3)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert image_size(tmp_path / "a.png") == (60, 40)


def test_the_size_of_a_large_png_takes_milliseconds(tmp_path: Path) -> None:
    Image.fromarray(noise(3000, 4000, 3)).save(tmp_path / "a.png", compress_level=0)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        assert image_size(tmp_path / "a.png") == (3000, 4000)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.02


def test_a_large_photo_is_held_once(tmp_path: Path) -> None:
    """OpenCV copies its result once inside ``imdecode``; nothing is copied after that."""
    if images.COLOUR_RGB is None or not Path("/proc/self/status").is_file():
        pytest.skip("needs OpenCV's RGB decoding and Linux")
    Image.fromarray(np.zeros((4000, 6000, 3), np.uint8)).save(tmp_path / "a.jpg")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "b.jpg")
    code = (
        "import sys; from pathlib import Path; from wsss.data.images import read_image\n"
        "size = lambda: next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmRSS'))\n"
        "read_image(Path(sys.argv[2])); before = size(); image = read_image(Path(sys.argv[1])); print(size() - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")]
    kibibytes = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert kibibytes * 1024 < 1.3 * 4000 * 6000 * 3


@pytest.mark.parametrize("lost", [1, 5, 12, 13, 40])
def test_a_png_without_its_end_is_refused_in_little_memory(lost: int) -> None:
    """OpenCV takes the bytes that are missing for the size of a chunk, and allocates up to 4 GiB."""
    content = stored(PHOTO, "PNG")[:-lost]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(images.UnreadableImage, match=r"truncated|OpenCV cannot decode it"):
        images.decode_image(content, Path("photo"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


def test_what_follows_the_end_of_a_png_is_ignored() -> None:
    content = stored(PHOTO, "PNG")
    np.testing.assert_array_equal(images.decode_image(content + b"more", Path("photo")), np.array(PHOTO))
