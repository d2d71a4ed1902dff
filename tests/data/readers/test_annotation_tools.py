"""Files of annotation programs with damage: what comes out is a data set or an error of ours."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

import wsss
from wsss.errors import WsssError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # what readers guess or leave out

FORMATS = Path(__file__).parents[2] / "formats"
FILES = {
    "label_studio_json": "project-3-at-2025-03-12-10-00-5f3c2a1b.json",
    "cvat_segmentation_mask": "labelmap.txt",
    "cvat_images_xml": "annotations.xml",
    "roboflow_png_mask": "train/_classes.csv",
    "labelme": "a.json",
    "via": "via_region_data.json",
    "via_csv": "via_export_csv.csv",
    "datumaro": "annotations/default.json",
    "supervisely": "ds0/ann/p1.jpg.json",
}
ODD = [b"null", b"-1", b"1e400", b"NaN", b"[]", b"{}", b'"x"', b"true", b"99999999999999999999", b"", b",", b"\xff"]


@pytest.mark.parametrize("name", FILES)
def test_damage_gives_our_errors_alone(name: str, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(FORMATS / name, root)
    options = json.loads((root / "EXPECTED.json").read_text()).get("options", [])
    reading = {flag[2:].replace("-", "_"): value for flag, value in zip(options[::2], options[1::2], strict=True)}
    path = root / FILES[name]
    good, rng = path.read_bytes(), random.Random(0)
    said: list[str] = []
    for _ in range(60):
        at = rng.randrange(len(good))
        path.write_bytes(good[:at] + rng.choice(ODD) + good[at + rng.randrange(12) :])
        try:
            dataset = wsss.open_dataset(root, **reading)
            for split in dataset.splits:
                for record in dataset.records(split):
                    dataset.truth(record, split)
        except WsssError as error:
            said.append(error.problem)
    assert all(said)
