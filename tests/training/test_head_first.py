"""`classify.finetune`: the head first, then the upper blocks; stopped anywhere it ends as if never stopped."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsss.data.splits import open_training
from wsss.errors import Interrupted
from wsss.models.checkpoint import build_from, load_network, read_checkpoint
from wsss.training import head
from wsss.training.optimiser import parameter_groups
from wsss.training.start import SILENT, resume_classifier, train_classifier

from .test_resume import ClassifyStep, assert_same_checkpoints, stop_at, terminate


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FEW_STEPS", 6), ("MOST_STEPS", 12), ("EVERY", 3)):
        monkeypatch.setattr(head, name, value)


@pytest.mark.parametrize("batch", [0, 2])
def test_stopped_while_the_head_is_fitted(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    config = tiny_config(classify__finetune="top", classify__ema=0.9, run__batch_pixels=4096)
    train_classifier(config, tmp_path / "whole", SILENT)
    plain, calls = head.load_batches, []

    def batches(*given: Any) -> Any:
        for number, found in enumerate(plain(*given)):
            if number == batch and not calls:
                calls.append(True)
                os.kill(os.getpid(), signal.SIGTERM)
            yield found

    monkeypatch.setattr(head, "load_batches", batches)
    with pytest.raises(Interrupted, match="while the head was fitted"):
        train_classifier(config, tmp_path / "cut", SILENT)
    assert "head" not in read_checkpoint(tmp_path / "cut" / "last.pt")["task"]
    resume_classifier(tmp_path / "cut", SILENT)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("step", [0, 3])
def test_stopped_after_the_head(tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    config = tiny_config(classify__finetune="top")
    train_classifier(config, tmp_path / "whole", SILENT)
    stop_at(monkeypatch, ClassifyStep, step, terminate)
    with pytest.raises(Interrupted):
        train_classifier(config, tmp_path / "cut", SILENT)
    resume_classifier(tmp_path / "cut", SILENT)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(("finetune", "same"), [("head", 4), ("top", 2), ("all", 0)])
def test_what_is_trained(tmp_path: Path, tiny_config: Any, finetune: str, same: int) -> None:
    config = tiny_config(classify__finetune=finetune)
    torch.manual_seed(config.run.seed)
    train_classifier(config, tmp_path / "run", SILENT)
    trained, _, _ = load_network(tmp_path / "run")
    choices = json.loads((tmp_path / "run" / "run.json").read_text())["choices"]
    assert choices.get("finetune", "all") == finetune
    start = build_from(config, trained.classes, decoder=False)
    unchanged = [
        all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
        for mine, theirs in zip(trained.backbone.vit.blocks, start.backbone.vit.blocks, strict=True)
    ]
    assert unchanged == [True] * same + [False] * (4 - same)


def test_rates_fall_with_depth(tiny_config: Any) -> None:
    config = tiny_config()
    network = build_from(config, ["a"], decoder=False)
    head.freeze_below(network, "top")
    rate_of = {
        id(parameter): group["lr"]
        for group in parameter_groups(config.classify, network, layer_decay=0.5)
        for parameter in group["params"]
    }
    lr, blocks = config.classify.lr, network.backbone.vit.blocks
    rates = [{rate_of.get(id(parameter)) for parameter in block.parameters()} for block in blocks]
    assert rates == [{None}, {None}, {lr / 2}, {lr}]
    assert {rate_of[id(parameter)] for parameter in network.readout.parameters()} == {lr}
    trained = {id(parameter) for parameter in network.parameters() if parameter.requires_grad}
    assert trained == rate_of.keys()


@pytest.mark.parametrize(
    ("whole", "each", "mode", "steps"),
    [(780, 195, "all", 780), (780, 195, "head", 0), (780, 195, "top", 390), (9, 3, "top", 6), (8, 4, "top", 8)],
)
def test_steps_after_the_head_make_whole_epochs(whole: int, each: int, mode: head.Mode, steps: int) -> None:
    assert head.steps_after_head(whole, each, mode) == steps


def test_auto_takes_the_upper_blocks_of_given_weights(tiny_config: Any) -> None:
    scratch = tiny_config(classify__finetune="auto")
    train, _ = open_training(scratch, SILENT)
    assert head.mode_of(scratch, train) == "all"
    assert head.mode_of(tiny_config(classify__finetune="auto", model__weights="pretrained"), train) == "top"


@given(st.integers(0, 2**32), st.integers(2, 60), st.integers(1, 5))
def test_a_tenth_is_held_out_of_each_class(seed: int, count: int, classes: int) -> None:
    present_NK = np.random.default_rng(seed).random((count, classes)) < 0.3
    held_N = head.held_out(present_NK, seed)
    assert (held_N == head.held_out(present_NK, seed)).all()
    for has_N in present_NK.T:
        assert (has_N & held_N).sum() >= min(1, has_N.sum() // 2)
    assert 0 < held_N.sum() < count
