"""`train-cls --init`: what a training takes of the run that it goes on from, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from wsss.errors import DataError, Interrupted, UsageError
from wsss.models.checkpoint import load_network, read_checkpoint
from wsss.reporting import Silent
from wsss.training import head
from wsss.training.start import SILENT, resume_classifier, train_classifier

from .test_resume import ClassifyStep, assert_same_checkpoints, stop_at, terminate

TEMPERATURE = {"name": "temperature", "layers": [2, 3]}


class Saying(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FEW_STEPS", 6), ("MOST_STEPS", 6), ("EVERY", 3)):
        monkeypatch.setattr(head, name, value)


@pytest.mark.parametrize("finetune", ["top", "all"])
def test_it_begins_with_the_weights_of_the_run_and_trains_as_the_run_did(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch, short: None, finetune: str
) -> None:
    train_classifier(tiny_config(classify__finetune=finetune), tmp_path / "first", SILENT)
    began = load_network(tmp_path / "first")[0].state_dict()
    config, reporter = tiny_config(classify__finetune="auto", classify__epochs=1), Saying()
    train_classifier(config, tmp_path / "whole", reporter, init=tmp_path / "first")
    words = {"top": "trains the upper half of the blocks and the head, 6 steps", "all": "trains all weights, 3 steps"}
    assert reporter.said.count(words[finetune]) == 1

    stop_at(monkeypatch, ClassifyStep, 0, terminate)
    with pytest.raises(Interrupted):
        train_classifier(config, tmp_path / "cut", SILENT, init=tmp_path / "first")
    content = read_checkpoint(tmp_path / "cut" / "last.pt")
    steps = {float(state["step"]) for state in content["training"]["optimizer"]["state"].values()}
    assert steps == {1.0}  # the step in which it was stopped, of a new optimiser
    assert content["config"]["classify"]["finetune"] == finetune
    assert content["task"] == {"init": str(tmp_path / "first")}
    resume_classifier(tmp_path / "cut", SILENT)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")

    ended = load_network(tmp_path / "whole")[0].state_dict()
    kept = [name for name in began if torch.equal(began[name], ended[name])]
    frozen = [name for name in began if name.startswith(("backbone.vit.blocks.0.", "backbone.vit.blocks.1."))]
    assert set(frozen) <= set(kept) if finetune == "top" else not kept


def test_edits_of_the_run_are_kept_and_new_ones_start_as_identity(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train_classifier(tiny_config(model__attention=[TEMPERATURE], classify__epochs=1), tmp_path / "first")
    image = torch.rand(1, 3, 32, 32)
    stay = {"classify__epochs": 1, "classify__lr": 1e-30}
    kept = train_classifier(tiny_config(**stay), tmp_path / "kept", init=tmp_path / "first")
    assert torch.equal(kept.attention[0].log_LA, first.attention[0].log_LA)  # type: ignore[arg-type]
    more = tiny_config(model__attention=[{"name": "temperature", "layers": [0, 1]}, TEMPERATURE], **stay)
    both = train_classifier(more, tmp_path / "both", init=tmp_path / "first")
    torch.testing.assert_close(both.eval().classify(image), first.eval().classify(image), rtol=0, atol=1e-6)
    reporter = Saying()
    none = train_classifier(
        tiny_config(model__attention=[], **stay), tmp_path / "none", reporter, init=tmp_path / "first"
    )
    assert len(none.attention) == 0
    assert f"{tmp_path / 'first'} has edits of attention that are left out: temperature" in reporter.said


def test_what_does_not_fit_is_refused_before_a_folder_is_made(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    train_classifier(tiny_config(classify__epochs=1), tmp_path / "first", SILENT)
    other = tiny_config(model__backbone="deit_tiny_patch16_224")
    with pytest.raises(UsageError, match="has the backbone deit_tiny_distilled_patch16_224") as refused:
        train_classifier(other, tmp_path / "run", init=tmp_path / "first")
    assert refused.value.fix.startswith("--backbone deit_tiny_distilled_patch16_224")
    shutil.copytree(scenes, tmp_path / "data", ignore=shutil.ignore_patterns("classes.txt", "masks"))
    table = tmp_path / "data" / "tags.csv"
    table.write_text(table.read_text().replace("ladybird", "wasp"))
    with pytest.raises(DataError, match=r"first does not know all classes: .*unknown tags: 'wasp'"):
        train_classifier(tiny_config(data__root=tmp_path / "data"), tmp_path / "run", init=tmp_path / "first")
    assert not (tmp_path / "run").exists()
