"""`segment.finetune`: which blocks `train-seg` trains, and what "auto" means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from wsss.config import config_from_plain
from wsss.models.checkpoint import _with_older_keys, load_network
from wsss.training.segment import FEW_PHOTOS, with_finetune
from wsss.training.start import SILENT, train_classifier, train_segmenter


@pytest.mark.parametrize(
    ("asked", "images", "weights", "mode"),
    [
        ("auto", FEW_PHOTOS - 1, "file.safetensors", "top"),
        ("auto", FEW_PHOTOS, "file.safetensors", "all"),
        ("auto", 5, "none", "all"),
        ("auto", 5, None, "all"),
        ("all", 5, "pretrained", "all"),
        ("top", 5000, None, "top"),
    ],
)
def test_what_auto_means(tiny_config: Any, asked: str, images: int, weights: str | None, mode: str) -> None:
    """By the number of images, and whether the run that it starts from began from weights; None: from no run."""
    init = None if weights is None else tiny_config(model__weights=weights)
    assert with_finetune(tiny_config(segment__finetune=asked), images, init).segment.finetune == mode


@pytest.mark.parametrize(("finetune", "same"), [("top", 2), ("all", 0)])
@pytest.mark.parametrize("rounds", [1, 2])
def test_which_blocks_change(tmp_path: Path, tiny_config: Any, finetune: str, same: int, rounds: int) -> None:
    train_classifier(tiny_config(), tmp_path / "cls")
    config = tiny_config(segment__finetune=finetune, segment__rounds=rounds, segment__epochs=1)
    said: list[str] = []

    class Reporter(type(SILENT)):  # type: ignore[misc]
        def say(self, text: str) -> None:
            said.append(text)

    train_segmenter(config, tmp_path / "seg", Reporter(), init=tmp_path / "cls")
    start, _, _ = load_network(tmp_path / "cls")
    runs = [tmp_path / "seg", *([tmp_path / "seg" / "teacher"] if rounds == 2 else [])]
    for run in runs:
        trained, kept, _ = load_network(run)
        assert kept.segment.finetune == finetune
        unchanged = [
            all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
            for mine, theirs in zip(trained.backbone.vit.blocks, start.backbone.vit.blocks, strict=True)
        ]
        assert unchanged == [True] * same + [False] * (4 - same)
    words = {"top": "trains the decoder and the upper half of the blocks", "all": "trains all weights"}
    assert any(text.startswith(words[finetune]) for text in said)


def test_runs_of_versions_without_the_key_trained_all_weights(tiny_config: Any) -> None:
    plain = json.loads(tiny_config().model_dump_json())
    del plain["segment"]["finetune"], plain["classify"]["finetune"]
    config = config_from_plain(_with_older_keys(plain))
    assert (config.segment.finetune, config.classify.finetune) == ("all", "all")
    assert with_finetune(config, 5, tiny_config(model__weights="pretrained")).segment.finetune == "all"
