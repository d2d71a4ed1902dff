"""Whether tags are those of drawn objects, which the supervision of a run says, in each format."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsss.config import Reading
from wsss.data.dataset import list_splits, open_data

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

FORMATS = Path(__file__).parents[2] / "formats"
DRAWN = ("coco_instances", "coco_cvat", "coco_roboflow", "coco_label_studio", "yolo_seg", "cvat_images_xml", "datumaro")
TAGGED = ("inaturalist", "class_folders", "table_pairs", "roboflow_multiclass", "label_studio_json_min", "fiftyone")


@pytest.mark.parametrize("name", [*DRAWN, *TAGGED])
def test_tags_of_objects(name: str) -> None:
    split = list_splits(FORMATS / name, Reading())[0]
    tagged = open_data(FORMATS / name, split=split)
    assert tagged.of_objects == (name in DRAWN)
    assert ("tags of instance annotations" in tagged.origin()) == (name in DRAWN)


def test_choices_and_regions_of_label_studio() -> None:
    root = FORMATS / "label_studio_json"
    assert open_data(root, reading=Reading(tag_field="classes")).of_objects
    assert not open_data(root, reading=Reading(tag_field="classes", tags_from="file")).of_objects
