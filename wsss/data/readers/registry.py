"""The readers by name, and the choice of one for a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from wsss.config import Reading
from wsss.data.near_names import NearNames
from wsss.data.readers.class_folders import CLASS_FOLDERS
from wsss.data.readers.coco import COCO
from wsss.data.readers.cvat_masks import CVAT_MASKS
from wsss.data.readers.cvat_xml import CVAT_XML
from wsss.data.readers.datumaro import DATUMARO
from wsss.data.readers.fiftyone import FIFTYONE
from wsss.data.readers.folder import FOLDER
from wsss.data.readers.histology import HISTOLOGY
from wsss.data.readers.label_studio import LABEL_STUDIO
from wsss.data.readers.labelme import LABELME
from wsss.data.readers.reader import Reader
from wsss.data.readers.roboflow_masks import ROBOFLOW_MASKS
from wsss.data.readers.split_tables import IMAGEFOLDER, ROBOFLOW_CLASSES
from wsss.data.readers.supervisely import SUPERVISELY
from wsss.data.readers.table import TABLE
from wsss.data.readers.via import VIA
from wsss.data.readers.voc import VOC
from wsss.data.readers.voc_flat import VOC_FLAT
from wsss.data.readers.webdataset import WEBDATASET
from wsss.data.readers.yolo import YOLO
from wsss.data.walking import is_file, is_folder, names_in
from wsss.errors import DataError, UsageError

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        *(VOC, FOLDER, TABLE, COCO, YOLO, CLASS_FOLDERS, HISTOLOGY, VOC_FLAT),
        *(LABEL_STUDIO, CVAT_MASKS, CVAT_XML, ROBOFLOW_CLASSES, ROBOFLOW_MASKS, LABELME, IMAGEFOLDER),
        *(FIFTYONE, VIA, DATUMARO, SUPERVISELY, WEBDATASET),
    )
}

NO_TABLES = (".xlsx", ".xls", ".ods", ".parquet", ".numbers")
"""Endings of tables that are not read."""
USUAL_PLACES = ("VOC2012", "VOCdevkit/VOC2012")
"""Where the data folder often lies when its parent was given."""


def find_reader(root: Path, reading: Reading | None = None, readers: Mapping[str, Reader] = READERS) -> Reader:
    """The reader of a data folder.

    Args:
        root: the folder.
        reading: its ``format`` is the name of a reader, or "auto" for the one that recognises the folder.
        readers: those to choose from.

    Raises:
        UsageError: there is no such format.
        DataError: the folder is missing, is not of the format asked for or of any, or is of several.
    """
    reading = reading or Reading()
    if reading.format not in ("auto", *readers):
        near = NearNames(readers).ask(reading.format)
        raise UsageError(f"no format '{reading.format}'{near}; there are {', '.join(readers)}", "wsss data formats")
    if is_file(root):
        packed = root.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
        fix = "unpack it and give the folder" if packed else f"--data {root.parent} --tags {root}"
        raise DataError(f"{root}: a file, where a data folder is expected", fix)
    if not is_folder(root):
        raise DataError(f"{root}: no such data folder", f"ls {root.parent}")
    asked = readers if reading.format == "auto" else {reading.format: readers[reading.format]}
    reasons = recognise(root, reading, asked)
    if len(reasons) > 1:
        seen = "; ".join(f"{name} ({reason})" for name, reason in reasons.items())
        raise DataError(
            f"{root}: several data formats: {seen}", "   or   ".join(f"--format {name}" for name in reasons)
        )
    if reasons:
        return readers[next(iter(reasons))]
    raise _no_data_set(root, asked)


def recognise(root: Path, reading: Reading | None = None, readers: Mapping[str, Reader] = READERS) -> dict[str, str]:
    """Why a folder is of a format, by the name of its reader; without readers over which another of them wins."""
    reading = reading or Reading()
    found = {name: reason for name, reader in readers.items() if (reason := reader.sniff(root, reading)) is not None}
    beaten = {other for name in found for other in readers[name].wins_over}
    return {name: reason for name, reason in found.items() if name not in beaten}


def _no_data_set(root: Path, readers: Mapping[str, Reader]) -> DataError:
    """The error for a folder that no reader recognises, with the folder below it that one does."""
    nested = next((place for place in USUAL_PLACES if is_folder(root / place) and recognise(root / place)), None)
    table = next((name for name in names_in(root) if name.lower().endswith(NO_TABLES)), None)
    near = next((said for reader in readers.values() if (said := reader.nearly(root)) is not None), None)
    if near is not None and not nested:
        return DataError(f"{root}: {near[0]}", near[1])
    sought = ", and for ".join(reader.looks_for for reader in readers.values())
    return DataError(
        f"{root}: no data set there; looked for {sought}",
        f"give {root / nested} instead"
        if nested
        else f"save {root / table} as CSV (UTF-8) beside it: header image,labels and a line for each image"
        if table
        else f"write {root / 'tags.csv'}: header image,labels and a line for each image (see data/README.md)",
    )
