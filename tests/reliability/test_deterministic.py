"""`--deterministic` sets torch's switches, every stage runs with it, and results repeat bit for bit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from wsss.cli.main import run
from wsss.config import Config, RunSection, to_yaml
from wsss.data.dataset import open_data
from wsss.data.masks import read_mask
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.predicting import predict_masks
from wsss.machine import be_deterministic
from wsss.reporting import Silent
from wsss.training.loop import Loop
from wsss.training.start import train_classifier, train_segmenter

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the switches after each test, because they belong to the process."""
    monkeypatch.delenv(WORKSPACE, raising=False)
    switches = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = switches
    os.environ.pop(WORKSPACE, None)


def test_the_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.cudnn.benchmark = True
    be_deterministic(RunSection())
    assert not torch.are_deterministic_algorithms_enabled()
    assert WORKSPACE not in os.environ
    be_deterministic(RunSection(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert os.environ[WORKSPACE] == ":4096:8"
    monkeypatch.setenv(WORKSPACE, ":16:8")
    be_deterministic(RunSection(deterministic=True))
    assert os.environ[WORKSPACE] == ":16:8"


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_every_stage_runs_and_repeats(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    """This includes double backward, PAMR, energy and decoder; on a CPU all have deterministic algorithms."""
    config: Config = tiny_config(
        run__deterministic=True, segment__epochs=1, segment__weight_energy=1e-3, classify__epochs=1
    )
    be_deterministic(config.run)
    networks = []
    for name in "ab":
        train_classifier(config, tmp_path / name / "cls", Silent())
        networks.append(train_segmenter(config, tmp_path / name / "seg", Silent(), init=tmp_path / name / "cls"))
        tagged = open_data(scenes, split="val")
        common: dict[str, Any] = {"device": torch.device("cpu"), "checkpoint_sha256": "0" * 64}
        make_pseudo_labels(networks[-1], tagged, tmp_path / name / "labels", config, Silent(), **common)
        predict_masks(networks[-1], tagged.records, tmp_path / name / "masks", config, Silent(), **common)
    assert same(*networks)
    for folder in ("labels", "masks"):
        for path in sorted((tmp_path / "a" / folder / "labels").iterdir()):
            assert (read_mask(path) == read_mask(tmp_path / "b" / folder / "labels" / path.name)).all()


@pytest.mark.parametrize("flag", ["--deterministic", "--no-deterministic"])
def test_the_flag_reaches_the_training(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    path, seen = tmp_path / "mine.yaml", list[tuple[bool, bool]]()
    path.write_text(to_yaml(tiny_config(run__deterministic=flag != "--deterministic")))  # the flag overrides the file

    def train(loop: Loop) -> None:
        seen.append((loop.config.run.deterministic, torch.are_deterministic_algorithms_enabled()))

    monkeypatch.setattr(Loop, "train", train)
    monkeypatch.setattr(sys, "argv", ["wsss", "train-cls", "-c", str(path), "-o", str(tmp_path / "run"), flag])
    with pytest.raises(SystemExit) as left:
        run()
    assert left.value.code == 0
    assert seen == [(flag == "--deterministic",) * 2]
