"""The writers by name."""

from __future__ import annotations

from wsss.data.near_names import NearNames
from wsss.data.writers.coco import COCO, COCO_RESULTS
from wsss.data.writers.cvat import CVAT, CVAT_MASKS
from wsss.data.writers.folder import FOLDER
from wsss.data.writers.geojson import GEOJSON
from wsss.data.writers.geotiff import GEOTIFF
from wsss.data.writers.label_studio import LABEL_STUDIO
from wsss.data.writers.qgis import QGIS
from wsss.data.writers.voc_test import VOC_TEST
from wsss.data.writers.webdataset import WEBDATASET
from wsss.data.writers.writer import Writer
from wsss.data.writers.yolo import YOLO
from wsss.errors import UsageError

WRITERS: dict[str, Writer] = {
    writer.name: writer
    for writer in (
        *(
            FOLDER,
            WEBDATASET,
            COCO,
            COCO_RESULTS,
            YOLO,
            LABEL_STUDIO,
            CVAT,
            CVAT_MASKS,
            VOC_TEST,
            GEOJSON,
            QGIS,
            GEOTIFF,
        ),
    )
}


def find_writer(name: str) -> Writer:
    """The writer of a format.

    Raises:
        UsageError: there is none.
    """
    if name not in WRITERS:
        near = NearNames(WRITERS).ask(name)
        raise UsageError(f"no writer '{name}'{near}; there are {', '.join(WRITERS)}", "wsss data formats")
    return WRITERS[name]
