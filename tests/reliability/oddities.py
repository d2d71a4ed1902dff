"""A data folder full of what real folders hold beside good photos: `python tests/reliability/oddities.py OUT`.

It is a folder in the folder layout, with a table, masks and saliency maps. Walk it as a new user does:

    wsss data check OUT
    wsss data check OUT --saliency OUT/Saliency -o LIST.csv
    wsss predict RUN OUT -o MASKS

Some oddities need a system that has them: fifos, names that are no UTF-8, folders that this user may not read (root may
read all). What could not be made is printed.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("cat", "dog")
GOOD = ("street/0001", "street/0002", "park/a", "park/b", "garden/0007", "garden/0008", "home/x", "home/y")
"""Photos without fault; cats and dogs in turn, some in both splits."""
HEIGHT, WIDTH = 48, 64
ORIENTATION = 0x0112
"""The tag of EXIF that says how a photo is turned."""


def pixels(seed: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A smooth picture, other for each seed, (H, W, 3)."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def photo(path: Path, seed: int, **options: object) -> Path:
    """A good photo of 48 x 64 pixels at a path, in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed)).save(path, **options)  # type: ignore[arg-type]
    return path


def good_photos(images: Path) -> None:
    for seed, name in enumerate(GOOD):
        photo(images / f"{name}.jpg", seed)


def files_of_machines(images: Path) -> None:
    """Thumbnails of a disk station, of a Mac and of Windows, and hidden files."""
    for seed, name in enumerate(GOOD[:3]):
        folder, file = name.split("/")
        photo(images / folder / "@eaDir" / f"{file}.jpg" / "SYNOPHOTO_THUMB_M.jpg", seed)
        (images / folder / f"._{file}.jpg").write_bytes(b"\0\5\x16\7")
    (images / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (images / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    photo(images / ".trash" / "old.jpg", 90)


def other_endings(images: Path) -> None:
    (images / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    (images / "camera.CR2").write_bytes(b"II*\0\x10\0\0\0CR\2\0")
    (images / "notes.txt").write_text("taken in May\n", encoding="utf-8")
    (images / "no_ending").write_bytes(b"\xff\xd8\xff\xe0")


def broken_files(images: Path) -> None:
    whole = photo(images / "cut.jpg", 20)
    whole.write_bytes(whole.read_bytes()[:600])
    (images / "empty.jpg").write_bytes(b"")
    (images / "page.jpg").write_text("<!DOCTYPE html><title>404 Not Found</title>\n", encoding="utf-8")
    (images / "words.jpg").write_text("this is no picture\n", encoding="utf-8")
    (images / "pointer.png").write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")


def other_forms(images: Path) -> None:
    """Images that are read, but of which a user should know how."""
    deep = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 21
    Image.fromarray(deep).save(images / "xray16.png")
    Image.fromarray(pixels(30)).convert("CMYK").save(images / "print.jpg")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(pixels(31)).save(images / "turned.jpg", exif=exif)
    exif[ORIENTATION] = 3
    Image.fromarray(pixels(32)).save(images / "upside.jpg", exif=exif)
    logo = Image.fromarray(pixels(33)).quantize(16)
    logo.save(images / "logo.png", transparency=0)
    frames = [Image.fromarray(pixels(seed)) for seed in (34, 35, 36)]
    frames[0].save(images / "funny.gif", save_all=True, append_images=frames[1:])
    frames[0].save(images / "animated.webp", save_all=True, append_images=frames[1:])
    frames[0].save(images / "scan.tif", save_all=True, append_images=frames[1:])
    Image.fromarray(pixels(37)).save(images / "renamed.jpg", format="PNG")
    Image.fromarray(pixels(38, 8, 8)).save(images / "icon.png")
    Image.fromarray(pixels(39, 10, 200)).save(images / "banner.png")
    (images / "copy_of_0001.jpg").write_bytes((images / "street" / "0001.jpg").read_bytes())


def odd_names(images: Path) -> None:
    """Names that differ in little, and names with characters that tables and terminals treat specially."""
    photo(images / "Case.jpg", 40)
    photo(images / "case.jpg", 41)
    photo(images / "caf\u00e9.jpg", 42)
    photo(images / "two  spaces.jpg", 43)
    photo(images / "a,b.jpg", 44)
    photo(images / 'it\'s "quoted".jpg', 45)
    photo(images / "[bold]brackets[/bold].jpg", 46)
    photo(images / "new\nline.jpg", 47)
    photo(images / "escape\x1b[31m.jpg", 48)
    photo(images / "same.jpg", 49)
    photo(images / "same.png", 50)
    photo(images / "0042.jpg", 51)


def names_in_other_encodings(images: Path) -> None:
    photo(images / os.fsdecode(b"gr\xfcn.jpg"), 52)


def links(images: Path) -> None:
    outside = images.parent / "disk"
    photo(outside / "linked.jpg", 60)
    for name in ("link1", "link2"):
        (images / name).symlink_to(outside, target_is_directory=True)
    (images / "circle").symlink_to(images, target_is_directory=True)
    (images / "unmounted").symlink_to("/nowhere/photos", target_is_directory=True)
    (images / "lost.jpg").symlink_to("/nowhere/lost.jpg")
    (images / "loop.jpg").symlink_to(images / "loop.jpg")


def unreadable(images: Path) -> None:
    photo(images / "private" / "x.jpg", 61)
    (images / "private").chmod(0)
    if os.access(images / "private", os.R_OK):
        (images / "private").chmod(0o700)
        (images / "private" / "x.jpg").unlink()
        (images / "private").rmdir()
        raise OSError("this user may read every folder")


def no_files(images: Path) -> None:
    """A folder called as an image is; a fifo, which would block its reader; a socket."""
    photo(images / "album.jpg" / "inside.jpg", 62)
    os.mkfifo(images / "fifo.jpg")
    here = Path.cwd()
    os.chdir(images)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("socket.jpg")
    finally:
        os.chdir(here)


def table(root: Path) -> None:
    """tags.csv with a byte-order mark, CRLF, and the labels that tools and people write."""
    splits = ("train",) * 5 + ("Valid", "Valid", "train")
    rows = [
        f"{name}.jpg,{CLASSES[seed % 2]},{split}" for seed, (name, split) in enumerate(zip(GOOD, splits, strict=True))
    ]
    rows += [
        *("cut.jpg,cat,train", "empty.jpg,dog,train", "page.jpg,cat,train", "words.jpg,dog,train"),
        *("pointer.png,cat,train", "xray16.png,dog,train", "print.jpg,,train", "turned.jpg,nan,train"),
        *("upside.jpg,None,train", "logo.png,n/a,train", "scan.tif,cat,train", "animated.webp,dog,train"),
        *("renamed.jpg,\"['cat', 'dog']\",train", "icon.png,\"['cat'\",train", "banner.png,cat;dog,train"),
        *("copy_of_0001.jpg,cat,train", "Case.jpg,Cat,train", "case.jpg,cta,train", "cafe\u0301.jpg,dog,train"),
        *("two spaces.jpg,cat,train", '"a,b.jpg",dog,train', '"it\'s ""quoted"".jpg",cat,train'),
        *("[bold]brackets[/bold].jpg,dog,train", '"new\nline.jpg",cat,train', "escape\x1b[31m.jpg,dog,train"),
        *("same.jpg,cat,train", "42.jpg,dog,train", "link1/linked.jpg,cat,Train", "link2/linked.jpg,cat,train"),
        *("street/0001.jpg,dog,train", "street/0009.jpg,dog,train", "phone.HEIC,cat,train", "fifo.jpg,dog,train"),
        *("socket.jpg,dog,train", "lost.jpg,dog,train", "../outside.jpg,cat,train", "album.jpg/inside.jpg,dog,train"),
        "park/a.jpg;cat;train",
    ]
    content = "\r\n".join(["image,labels,split", *rows, ""]).encode("utf-8-sig")
    (root / "tags.csv").write_bytes(content)
    (root / "tags.json").write_text('{"street/0001": ["dog"]}', encoding="utf-8")


def mask(path: Path, label_HW: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label_HW)
    image.putpalette(np.arange(768, dtype=np.uint8).tobytes())
    image.save(path)


def masks(root: Path) -> None:
    """Good masks for some photos; others are turned, of another size, of values 0 and 255, or coloured."""
    folder = root / "masks"
    good_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    good_HW[10:30, 10:30] = 1
    for name in GOOD[:6]:
        mask(folder / f"{name}.png", good_HW)
    mask(folder / "turned.png", good_HW)
    mask(folder / "upside.png", good_HW)
    mask(folder / "xray16.png", good_HW[::2, ::2])
    mask(folder / "scan.png", 255 * good_HW)
    mask(folder / "banner.png", np.full((10, 200), 9, np.uint8))
    Image.fromarray(pixels(70)).save(folder / "print.png")
    Image.fromarray(255 * good_HW).save(folder / "logo.png")
    (folder / "animated.png").write_bytes(b"no mask")
    mask(folder / "of_no_photo.png", good_HW)


def saliency_maps(root: Path) -> None:
    """Maps in [0, 255] for some photos, one of another size."""
    for name in GOOD[:4]:
        path = root / "Saliency" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(80)[..., 0]).save(path)
    Image.fromarray(pixels(81)[::2, ::2, 0]).save(root / "Saliency" / f"{GOOD[3]}.png")


IN_IMAGES: tuple[Callable[[Path], None], ...] = (
    *(good_photos, files_of_machines, other_endings, broken_files, other_forms, odd_names),
    *(names_in_other_encodings, links, unreadable, no_files),
)
"""What makes oddities in the folder of images; ``write_oddities`` makes the rest beside it."""


def write_oddities(root: Path) -> list[str]:
    """Write the folder; returns what this system or user could not make, and why."""
    images, failed = root / "images", []
    images.mkdir(parents=True)
    for make in IN_IMAGES:
        try:
            make(images)
        except OSError as error:
            failed.append(f"{make.__name__}: {error}")
    for make in (table, masks, saliency_maps):
        make(root)
    return failed


def allow_removal(root: Path) -> None:
    """Give a folder of oddities the rights that deleting it needs."""
    with suppress(OSError):
        (root / "images" / "private").chmod(0o700)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for left_out in write_oddities(Path(sys.argv[1])):
        print(f"not made: {left_out}")
