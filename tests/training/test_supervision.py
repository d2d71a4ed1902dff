"""The supervision of a network (kinds of labels) is stored in runs, label folders and mask folders made from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.config import DataSection
from wsss.data.dataset import open_data
from wsss.data.images import read_image
from wsss.data.masks import write_mask
from wsss.inference.evaluate import evaluate_labels
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.predicting import predict_masks
from wsss.models.checkpoint import load_network, read_checkpoint
from wsss.outputs.manifest import read_manifest
from wsss.outputs.provenance import all_of, data_supervision
from wsss.reporting import Silent
from wsss.training.start import resume_segmenter, train_classifier, train_segmenter

QUIET, CPU = Silent(), torch.device("cpu")


def supervision(run: Path, which: str = "last") -> tuple[str, ...]:
    return load_network(run, which)[0].supervision


def test_the_words() -> None:
    saliency = Path("saliency")
    assert data_supervision(DataSection(), saliency=True) == ("tags",)
    assert data_supervision(DataSection(saliency=saliency), saliency=True) == ("tags", "saliency maps")
    assert data_supervision(DataSection(saliency=saliency), saliency=False) == ("tags",)
    assert data_supervision(DataSection(tags_from="masks"), saliency=True) == ("tags from masks",)
    assert all_of(("tags", "a"), (), ("b", "tags")) == ("tags", "a", "b")


def test_supervision_passes_from_run_to_labels_to_run_to_masks_to_the_score(
    tmp_path: Path, scenes: Path, tiny_config: Any
) -> None:
    train, val = (open_data(scenes, split=split) for split in ("train", "val"))
    for record in (*train.records, *val.records):
        write_mask(tmp_path / "saliency" / f"{record.name}.png", np.zeros(read_image(record.image).shape[:2], np.uint8))
    config = tiny_config(classify__epochs=1, segment__epochs=1)
    train_classifier(config, tmp_path / "cls", QUIET)
    assert supervision(tmp_path / "cls") == ("tags",)
    assert supervision(tmp_path / "cls", "best") == ("tags", "checkpoint chosen on val")

    network, _, _ = load_network(tmp_path / "cls")
    salient = tiny_config(data__saliency=tmp_path / "saliency")
    labels = tmp_path / "labels"
    make_pseudo_labels(network, train, labels, salient, QUIET, device=CPU, checkpoint_sha256="f00d")
    train_segmenter(config, tmp_path / "seg", QUIET, labels=labels, init=tmp_path / "cls")
    assert supervision(tmp_path / "seg") == ("tags", "saliency maps")

    network, _, _ = load_network(tmp_path / "seg", "best")
    masks = tmp_path / "masks"
    predict_masks(network, val.records, masks, config, QUIET, device=CPU, checkpoint_sha256="f00d")
    expected = ("tags", "saliency maps", "checkpoint chosen on val")
    assert tuple(read_manifest(masks)["supervision"]) == expected
    assert evaluate_labels(masks, val).supervision == expected

    (labels / "manifest.json").unlink()  # without a manifest the origin of the labels is unknown
    train_segmenter(config, tmp_path / "unknown", QUIET, labels=labels)
    assert supervision(tmp_path / "unknown") == ("tags", "label maps")


def test_end_to_end_with_saliency_and_after_a_resume(tmp_path: Path, scenes: Path, tiny_config: Any) -> None:
    for record in open_data(scenes, split="train").records:
        write_mask(tmp_path / "saliency" / f"{record.name}.png", np.zeros(read_image(record.image).shape[:2], np.uint8))
    config = tiny_config(data__saliency=tmp_path / "saliency", segment__epochs=1, segment__ema=0.9)
    train_segmenter(config, tmp_path / "run", QUIET)
    assert supervision(tmp_path / "run") == ("tags", "saliency maps")
    resume_segmenter(tmp_path / "run", QUIET)
    assert supervision(tmp_path / "run") == ("tags", "saliency maps")


def test_supervision_of_an_earlier_version_is_unknown(tmp_path: Path, scenes: Path, tiny_config: Any) -> None:
    train_classifier(tiny_config(classify__epochs=1), tmp_path / "cls", QUIET)
    content = read_checkpoint(tmp_path / "cls" / "last.pt")
    del content["supervision"]
    torch.save(content, tmp_path / "cls" / "last.pt")
    assert supervision(tmp_path / "cls") == ()
    network, _, _ = load_network(tmp_path / "cls")
    train = open_data(scenes, split="train")
    make_pseudo_labels(network, train, tmp_path / "out", tiny_config(), QUIET, device=CPU, checkpoint_sha256="f00d")
    assert read_manifest(tmp_path / "out")["supervision"] == ["a run that does not say its supervision", "tags"]
    train_segmenter(tiny_config(segment__epochs=1), tmp_path / "seg", QUIET, init=tmp_path / "cls")
    assert supervision(tmp_path / "seg") == ("a run that does not say its supervision", "tags")


def test_a_run_resumes_from_another_directory(
    tmp_path: Path, scenes: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths are stored as absolute paths."""
    shutil.copytree(scenes, tmp_path / "here" / "photos")
    monkeypatch.chdir(tmp_path / "here")
    config = tiny_config(data__root=Path("photos"), classify__epochs=1, segment__epochs=1)
    train_segmenter(config, Path("run"), QUIET)
    monkeypatch.chdir(tmp_path)
    resume_segmenter(Path("here/run"), QUIET)
