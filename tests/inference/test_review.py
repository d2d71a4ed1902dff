"""What to look at first: by ignored pixels or by margins, from the journal alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.config import Config
from wsss.data.dataset import open_data, open_unlabelled
from wsss.data.masks import IGNORE_INDEX, read_mask, write_mask
from wsss.data.writers.registry import find_writer
from wsss.errors import DataError
from wsss.inference.certainty import margins, mean_scores
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.predicting import predict_masks
from wsss.inference.review import review_queue
from wsss.inference.segmenter import Segmenter
from wsss.outputs.exports import export_labels, write_export
from wsss.outputs.journal import JOURNAL, read_journal
from wsss.reporting import Silent

CPU = torch.device("cpu")


def test_margins_by_hand() -> None:
    """Four places; class 0 wins two by 0.2 and 0.6, class 2 wins two by 0.1 and 0.3; class 1 wins none."""
    places = torch.tensor([[0.5, 0.3, 0.2], [0.8, 0.0, 0.2], [0.1, 0.4, 0.5], [0.3, 0.1, 0.6]])
    assert margins(places.T.reshape(3, 2, 2).clamp_min(1e-9).log()) == {0: 0.4, 2: 0.2}


def test_mean_scores_by_hand() -> None:
    scores_Rhw = torch.tensor([[[0.9, 0.1], [0.5, 0.2]], [[0.0, 0.0], [0.0, 0.7]]])
    label_HW = np.array([[3, 0], [3, 1]], np.uint8)
    assert mean_scores(scores_Rhw, (2, 0), label_HW) == {3: 0.7, 1: 0.7}
    assert mean_scores(scores_Rhw, (2, 0), np.zeros((2, 2), np.uint8)) == {}
    assert mean_scores(torch.zeros(0, 2, 2), (), label_HW) == {}


def test_plain_label_maps_by_ignored_pixels(tmp_path: Path) -> None:
    for name, ignored in (("b", 1), ("deep/a", 3), ("c", 1), ("d", 0)):
        label_HW = np.ones((2, 2), np.uint8)
        label_HW.flat[:ignored] = IGNORE_INDEX
        write_mask(tmp_path / f"{name}.png", label_HW)
    queue = review_queue(tmp_path)
    assert [(one.name, one.doubt) for one in queue] == [("deep/a", 0.75), ("b", 0.25), ("c", 0.25), ("d", 0.0)]
    assert {one.why for one in queue} == {"ignored"}
    with pytest.raises(DataError, match="no such folder"):
        review_queue(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no label map in it"):
        review_queue(tmp_path / "empty")


def test_predictions_by_margin(
    tmp_path: Path, small_network: Callable[..., Any], tiny_config: Callable[..., Config], scenes: Path
) -> None:
    network, config, out = small_network(), tiny_config(), tmp_path / "masks"
    torch.manual_seed(2)
    torch.nn.init.normal_(network.decoder.classify.weight, std=3.0)
    records = open_unlabelled(scenes / "images")[:5]
    predict_masks(network, records, out, config, Silent(), device=CPU, checkpoint_sha256="0")
    queue = review_queue(out)
    assert {one.why for one in queue} == {"margin"}
    assert sorted(one.name for one in queue) == sorted(record.name for record in records)
    assert [one.doubt for one in queue] == sorted((one.doubt for one in queue), reverse=True)
    segmenter = Segmenter(network, config, CPU)
    for one in queue:
        assert one.image is not None
        likeliest = np.sort(segmenter.predict(one.image).probabilities(), axis=0)
        mean_HW = likeliest[-1] - likeliest[-2]
        assert abs(one.doubt - (1 - mean_HW.mean())) < 0.05  # there on the pixels, in the journal on the grid
    lines = [json.loads(line) for line in (out / JOURNAL).read_text().splitlines()]
    (out / JOURNAL).write_text(
        "".join(json.dumps({k: v for k, v in one.items() if k != "certainty"}) + "\n" for one in lines)
    )
    with pytest.raises(DataError, match="5 of its masks were made before certainties were kept"):
        review_queue(out)


def test_scores_in_what_is_written(
    tmp_path: Path, small_network: Callable[..., Any], tiny_config: Callable[..., Config], scenes: Path
) -> None:
    tagged, out = open_data(scenes, split="val"), tmp_path / "labels"
    config = tiny_config(labels__low=0.1, labels__high=0.2)
    make_pseudo_labels(small_network(), tagged, out, config, Silent(), device=CPU, checkpoint_sha256="0")
    journal = read_journal(out)
    held = {name: {k for k in entry.pixels if 0 < k < IGNORE_INDEX} for name, entry in journal.items()}
    assert any(held.values())
    for name, entry in journal.items():
        assert set(entry.certainty) <= held[name]
        assert all(0 <= value <= 1 for value in entry.certainty.values())
    assert any(entry.certainty for entry in journal.values())
    queue = review_queue(out)
    shares = {one.name: float(np.mean(read_mask(one.label) == IGNORE_INDEX)) for one in queue}
    assert [one.name for one in queue] == sorted(shares, key=lambda name: (-round(shares[name], 4), name))
    write_export(tmp_path / "ls", export_labels(out), find_writer("label-studio"))
    tasks = json.loads((tmp_path / "ls" / "tasks.json").read_text())
    by_name = {Path(task["data"]["image"]).stem: task["predictions"][0] for task in tasks}
    for name, entry in journal.items():
        said = {one["value"]["brushlabels"][0]: one.get("score") for one in by_name[Path(name).stem]["result"]}
        assert said == {tagged.classes[k - 1]: entry.certainty.get(k) for k in held[name]}
    write_export(tmp_path / "coco", export_labels(out), find_writer("coco"))
    annotations = json.loads((tmp_path / "coco" / "annotations" / "instances_all.json").read_text())["annotations"]
    assert any("score" in one for one in annotations)
