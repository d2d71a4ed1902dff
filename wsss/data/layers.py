"""Layers of a data set: folders with one PNG for each image, of its size (label maps, saliency maps)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsss.data.facts import image_digest
from wsss.data.images import image_size
from wsss.data.masks import read_mask
from wsss.data.records import Record, TaggedSet
from wsss.data.walking import is_file, near_file, spelled
from wsss.errors import DataError
from wsss.reporting import first_few

NO_SALIENCY = "leave --saliency out, or choose a split that has maps"


def check_layers(folder: Path, tagged: TaggedSet, what: str, fix: str) -> None:
    """Refuse a folder of PNGs that does not fit a set, before long work starts; reads headers, decodes nothing.

    Raises:
        DataError: for some image there is no PNG, or one of another size.
    """
    missing, other_size = [], []
    for record in tagged.records:
        path = spelled(folder, f"{record.name}.png")
        if not is_file(path):
            missing.append(record.name)
        elif image_size(path) != record.upright_size():
            other_size.append(record.name)
    for names, problem in ((missing, f"no {what}"), (other_size, f"a {what} of another size")):
        if names:
            count = f"{len(names)} of {len(tagged)} images of {tagged.split}"
            near = near_file(folder, f"{names[0]}.png") if names is missing else ""
            hint = f"; {names[0]}.png{near}" if near else ""
            raise DataError(f"{folder}: {count} have {problem} ({first_few(names)}){hint}", fix)


def layer_digest(folder: Path, tagged: TaggedSet, *, some: bool = False) -> str:
    """SHA-256, in hexadecimal, of the names of all images of a set and the bytes of their PNGs, in their order.

    With ``some``, of the images alone that have a PNG.

    Raises:
        DataError: a PNG cannot be read.
    """
    digest = hashlib.sha256()
    for record in tagged.records:
        path = folder / f"{record.name}.png"
        if some and not path.is_file():
            continue
        try:
            content = image_digest(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})", f"ls {folder}") from error
        digest.update(f"{record.name!r} {content}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def read_layer(folder: Path, record: Record, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read the PNG of one image: (H, W) uint8.

    Args:
        folder: of the layer.
        record: of the image.
        size: (H, W) of the image.

    Raises:
        DataError: it is missing, unreadable or of another size.
    """
    path = spelled(folder, f"{record.name}.png")
    layer_HW = read_mask(path)
    if layer_HW.shape != size:
        raise DataError(
            f"{path} is {layer_HW.shape[1]}x{layer_HW.shape[0]}, its image {size[1]}x{size[0]} (width x height)",
            f"make {folder} again from these images",
        )
    return layer_HW
