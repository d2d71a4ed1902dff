"""Write the archive that the evaluation server of PASCAL VOC takes, and check it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from wsss.data.masks import PALETTE, encode_mask
from wsss.data.readers.voc import VOC_CLASSES
from wsss.data.writers.writer import Export, Writer
from wsss.errors import DataError, UsageError
from wsss.files import whole
from wsss.reporting import first_few

TREE = "results/VOC2012/Segmentation/comp6_test_cls"
"""Folder of the masks in the archive; comp6: trained on more than VOC, such as weights of ImageNet."""
ARCHIVE = "results.tgz"


def write_voc_test(out: Path, export: Export) -> None:
    """Fill a folder with results.tgz, and check it as the server does.

    Raises:
        UsageError: the classes are not those of VOC.
        DataError: the archive would be refused; with all that is wrong.
    """
    if export.classes != VOC_CLASSES:
        raise UsageError("the server of VOC takes its 20 classes in their order", "train with the classes of VOC")
    with whole(out / ARCHIVE) as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for picture, label_HW in export.labels():
            if label_HW is not None:
                content = encode_mask(label_HW)
                member = tarfile.TarInfo(f"{TREE}/{picture.name}.png")
                member.size, member.mode = len(content), 0o644
                archive.addfile(member, io.BytesIO(content))
    sizes = {picture.name: None if picture.image is None else picture.size(None) for picture in export.pictures}
    faults = list(archive_faults(out / ARCHIVE, sizes))
    if faults:
        raise DataError(f"{ARCHIVE} would be refused: {first_few(faults, 10)}", "predict the whole test split again")


def archive_faults(path: Path, sizes: Mapping[str, tuple[int, int] | None]) -> Iterator[str]:
    """All for which the server would refuse an archive.

    Args:
        path: of the archive.
        sizes: (H, W) of each image of the test split by its name; None where it is not known.
    """
    seen = set()
    with tarfile.open(path) as archive:
        for member in archive:
            folder, _, file = member.name.rpartition("/")
            name = file.removesuffix(".png")
            if folder != TREE or name not in sizes or not file.endswith(".png") or not member.isfile():
                yield f"{member.name}: is no mask of the test split"
                continue
            seen.add(name)
            content = archive.extractfile(member)
            assert content is not None
            yield from (f"{name}: {fault}" for fault in _mask_faults(content.read(), sizes[name]))
    yield from (f"{name}: no mask" for name in sizes if name not in seen)


def _mask_faults(content: bytes, size: tuple[int, int] | None) -> Iterator[str]:
    """What is wrong with a mask of an image of this size."""
    with Image.open(io.BytesIO(content)) as image:
        if image.format != "PNG" or image.mode != "P":
            yield f"is a {image.format} of mode {image.mode}, no palette PNG"
            return
        if image.getpalette() != PALETTE.reshape(-1).tolist():
            yield "has other colours than VOC"
        label_HW = np.asarray(image)
    if size is not None and label_HW.shape != size:
        yield f"is {label_HW.shape[1]}x{label_HW.shape[0]}, its image {size[1]}x{size[0]} (width x height)"
    if label_HW.max(initial=0) > len(VOC_CLASSES):
        yield f"holds value {label_HW.max()}, expected 0 to {len(VOC_CLASSES)}"


VOC_TEST = Writer(
    name="voc-test", writes="results.tgz for the evaluation server of PASCAL VOC (comp6), checked", write=write_voc_test
)
