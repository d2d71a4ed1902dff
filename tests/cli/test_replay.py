"""``wsss replay``: the step of a bad loss is taken again, and its first value that is not finite is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wsss.config import Config
from wsss.errors import DataError
from wsss.reporting import Silent
from wsss.training.bad_loss import BadLoss
from wsss.training.classify import ClassifyStep
from wsss.training.replay import replay
from wsss.training.segment import SegmentStep
from wsss.training.start import train_classifier, train_segmenter

Program = Callable[..., Any]
QUIET = Silent()
BAD = 2
"""The step, from 0."""


def spoil(monkeypatch: pytest.MonkeyPatch, kind: Any, how: Callable[[Any], None], at: int = BAD) -> None:
    """Change the network before a step."""
    plain = kind.forward

    def forward(self: Any, batch: Any, step: int) -> Any:
        if step == at:
            with torch.no_grad():
                how(self.network)
        return plain(self, batch, step)

    monkeypatch.setattr(kind, "forward", forward)


def poison(network: Any) -> None:
    network.backbone.blocks[2].attn.qkv.weight[0, 0] = torch.nan


def enlarge(by: float) -> Callable[[Any], None]:
    return lambda network: network.backbone.blocks[1].mlp.fc1.weight.uniform_(-1, 1).mul_(by)


@pytest.fixture
def spoilt(tmp_path: Path, tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trains until a bad loss; returns its file."""

    def train(how: Callable[[Any], None], segment: bool = False, **changes: Any) -> Path:
        with monkeypatch.context() as patch:
            spoil(patch, SegmentStep if segment else ClassifyStep, how, 4 if segment else BAD)
            with pytest.raises(BadLoss):
                (train_segmenter if segment else train_classifier)(tiny_config(**changes), tmp_path / "run", QUIET)
        return tmp_path / "run" / "bad-batch.pt"

    return train


def test_a_poisoned_weight(wsss: Program, spoilt: Any) -> None:
    path = spoilt(poison)
    found = wsss("replay", path)
    assert (found.status, found.out) == (0, "weights backbone.vit.blocks.2.attn.qkv.weight\n")
    found = wsss("replay", path.parent, "--json")
    plain = json.loads(found.out)
    assert (plain["step"], plain["where"], len(plain["images"])) == (BAD + 1, "weights", 8)


def test_a_poisoned_image(spoilt: Any) -> None:
    path = spoilt(poison, classify__accumulate=2)
    content = torch.load(path, weights_only=True)
    content["batch"]["image"] = content["batch"]["image"].float()
    content["batch"]["image"][5, 0, 3, 3] = torch.nan
    content["checkpoint"]["network"]["backbone.vit.blocks.2.attn.qkv.weight"][0, 0] = 0
    torch.save(content, path)
    found = replay(path)
    assert found.place is not None
    assert (found.place.where, found.place.module, found.images) == ("batch", "image", (content["names"][5],))


@pytest.mark.parametrize(("amp", "by"), [("fp16", 6e4), ("bf16", 3e38)])
def test_an_overflow_under_autocast(wsss: Program, spoilt: Any, amp: str, by: float) -> None:
    path = spoilt(enlarge(by), run__amp=amp)
    plain = json.loads(wsss("replay", path, "--json").out)
    assert (plain["where"], plain["module"], plain["of"]) == ("forward", "backbone.vit.blocks.1.mlp.fc1", "output")
    ((low, high),) = plain["inputs"]
    assert -10 < low < 0 < high < 10
    assert plain["images"]


def test_a_gradient(spoilt: Any) -> None:
    path = spoilt(poison)
    content = torch.load(path, weights_only=True)
    content["checkpoint"]["network"]["backbone.vit.blocks.2.attn.qkv.weight"][0, 0] = 0
    torch.save(content, path)
    assert replay(path).place is None
    torch.save(content | {"scale": 1e39}, path)
    place = replay(path).place
    assert place is not None
    assert place.where == "backward"


def test_end_to_end_and_the_weights_of_the_last_checkpoint(
    wsss: Program, spoilt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spoilt(poison, segment=True, segment__ema=0.5)
    assert wsss("replay", path).out == "weights backbone.vit.blocks.2.attn.qkv.weight\n"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "checkpoint": None, "average": None}, path)  # as on CUDA
    found = wsss("replay", path)
    assert (found.status, found.out) == (0, "finite\n")
    assert "the weights are those after step 0, of last.pt: those before step 5 are gone" in found.err


def test_other_files_are_refused(spoilt: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        replay(tmp_path / "no.pt")
    path = spoilt(poison)
    with pytest.raises(DataError, match="is no batch of a bad loss"):
        replay(path.parent / "last.pt")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "names": content["names"][1:]}, path)
    with pytest.raises(DataError, match="parts do not fit each other"):
        replay(path)
    torch.save({key: content[key] for key in ("step", "names", "loss", "batch")}, path)
    with pytest.raises(DataError, match="an earlier version wrote it"):
        replay(path)
    torch.save({**content, "making": {"total": 3}}, path)
    with pytest.raises(DataError, match="parts do not fit each other"):
        replay(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="cut off"):
        replay(path)
