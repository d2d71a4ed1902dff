"""GeoTIFF through rasterio (``pip install 'wsss[geo]'``): bands, pixels without data, and where a picture lies.

Shape suffixes: N bands, H x W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.data.images import FULL_LEVELS, Levels, UnreadableImage, levelled
from wsss.errors import MachineError

INSTALL = "pip install 'wsss[geo]'"
TIFF_SUFFIXES = (".tif", ".tiff")
NO_DATA = 255
"""Value of pixels without data in label maps: they are of no class, and ignored."""


def has_rasterio() -> bool:
    """Whether rasterio is installed."""
    return find_spec("rasterio") is not None


def remark(paths: Iterable[str]) -> str:
    """What to say of TIFF files where rasterio is missing; empty elsewhere."""
    if has_rasterio() or not any(path.lower().endswith(TIFF_SUFFIXES) for path in paths):
        return ""
    return f"TIFF files: pixels without data are read as if they had some; {INSTALL} tells them apart"


def require_rasterio() -> None:
    """Check that rasterio is there.

    Raises:
        MachineError: it is not.
    """
    if not has_rasterio():
        raise MachineError("bands and coordinates of GeoTIFF files need rasterio, which is not installed", INSTALL)


@contextmanager
def _opened(content: bytes, where: Path) -> Iterator[Any]:
    require_rasterio()
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile

    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with MemoryFile(content) as file, file.open() as dataset:
                yield dataset
    except RasterioError as error:
        raise UnreadableImage(where, " ".join(str(error).split())) from error


def read_bands(content: bytes, where: Path, bands: tuple[int, ...], levels: Levels | None) -> NDArray[np.uint8]:
    """Some bands of a picture as (H, W, 3) uint8; pixels without data are black.

    Args:
        content: of the file.
        where: its path, for messages.
        bands: one, or three for red, green and blue; numbers from 1.
        levels: values that are black and white; None: all that 8 or 16 bits hold. Other numbers need them.

    Raises:
        UnreadableImage: it cannot be read, or has fewer bands, or numbers without a range.
        MachineError: rasterio is not installed.
    """
    with _opened(content, where) as dataset:
        if max(bands) > dataset.count:
            raise UnreadableImage(where, f"it has {dataset.count} bands, --bands asks for {max(bands)}")
        values_NHW = dataset.read([*bands])
        valid_HW = dataset.dataset_mask() > 0
    if values_NHW.dtype == np.uint16:
        read_NHW = levelled(values_NHW, levels or FULL_LEVELS)
    elif values_NHW.dtype == np.uint8:
        read_NHW = values_NHW
    elif levels is None:
        what = f"its values are {values_NHW.dtype}: --range LOW,HIGH says which are black and white"
        raise UnreadableImage(where, what)
    else:
        low, high = levels
        shares_NHW = (np.nan_to_num(values_NHW.astype(np.float64), nan=low) - low) / (high - low)
        read_NHW = (shares_NHW * 256).clip(0, 255).astype(np.uint8)
    read_HWN = np.where(valid_HW[..., None], read_NHW.transpose(1, 2, 0), 0).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(read_HWN, (*valid_HW.shape, 3)))


def band_bits(content: bytes, where: Path, bands: tuple[int, ...]) -> tuple[tuple[int, int], int]:
    """(H, W), and the bits that the samples of some bands use: 8, or 9 to 16.

    Raises:
        UnreadableImage, MachineError: see ``read_bands``.
    """
    with _opened(content, where) as dataset:
        if max(bands) > dataset.count:
            raise UnreadableImage(where, f"it has {dataset.count} bands, --bands asks for {max(bands)}")
        values_NHW = dataset.read([*bands])
        if values_NHW.dtype != np.uint16:
            return values_NHW.shape[1:], 8
        valid_HW = dataset.dataset_mask() > 0
    most = int(np.where(valid_HW, values_NHW, 0).max(initial=0))
    return values_NHW.shape[1:], max(9, most.bit_length())


def valid_pixels(content: bytes, where: Path) -> NDArray[np.bool_] | None:
    """(H, W) where a TIFF has data, by its no-data value or its mask; None where that is everywhere.

    Raises:
        UnreadableImage: it cannot be read.
    """
    with _opened(content, where) as dataset:
        if dataset.nodata is None and all("all_valid" in map(str, flags) for flags in _flags(dataset)):
            return None
        valid_HW: NDArray[np.bool_] = dataset.dataset_mask() > 0
    return None if valid_HW.all() else valid_HW


def _flags(dataset: Any) -> list[list[str]]:
    return [[flag.name for flag in flags] for flags in dataset.mask_flag_enums]


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where a picture lies.

    Attributes:
        crs: its coordinate system, as rasterio has it; None where the file names none.
        transform: from columns and rows to coordinates.
    """

    crs: Any
    transform: Any


def georeference(content: bytes, where: Path) -> Georeference | None:
    """Where a picture lies; None where the file does not say it."""
    with _opened(content, where) as dataset:
        if dataset.crs is None and dataset.transform.is_identity:
            return None
        return Georeference(dataset.crs, dataset.transform)


def write_label(path: Path, label_HW: NDArray[np.uint8], place: Georeference, palette: NDArray[np.uint8]) -> None:
    """Write a label map as a GeoTIFF of the same coordinates; 255 is no data, the colours are a table."""
    import rasterio

    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=label_HW.shape[0],
        width=label_HW.shape[1],
        count=1,
        dtype="uint8",
        crs=place.crs,
        transform=place.transform,
        nodata=NO_DATA,
        compress="deflate",
        photometric="palette",
    ) as file:
        file.write(label_HW, 1)
        file.write_colormap(1, {index: (*colour, 255) for index, colour in enumerate(palette.tolist())})


def polygons(label_HW: NDArray[np.uint8], place: Georeference, classes: tuple[str, ...]) -> dict[str, Any]:
    """The connected parts of each class as a GeoJSON object, in the coordinates of the picture."""
    from rasterio.features import shapes

    known_HW = (label_HW > 0) & (label_HW != NO_DATA)
    features = [
        {"type": "Feature", "properties": {"class": classes[int(value) - 1]}, "geometry": geometry}
        for geometry, value in shapes(label_HW, mask=known_HW, transform=place.transform)
    ]
    found: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if place.crs is not None:
        found["crs"] = {"type": "name", "properties": {"name": place.crs.to_string()}}
    return found
