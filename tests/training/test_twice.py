"""``--verify-steps``: a step that is computed twice changes nothing, and a device that computes wrongly is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wsss.config import Config
from wsss.models.checkpoint import read_checkpoint
from wsss.reporting import Silent
from wsss.training.loop import Loop
from wsss.training.start import train_classifier, train_segmenter
from wsss.training.twice import Computed, ComputesWrongly, difference_of

QUIET = Silent()


def weights(run: Path) -> dict[str, torch.Tensor]:
    content = read_checkpoint(run / "last.pt")
    found: dict[str, torch.Tensor] = {**content["network"]}
    for key, state in content["training"]["optimizer"]["state"].items():
        found |= {f"{key}.{name}": value for name, value in state.items()}
    return found


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_the_run_is_the_same(tmp_path: Path, tiny_config: Callable[..., Config], amp: str) -> None:
    settings = {"run__amp": amp, "classify__accumulate": 2, "model__drop_path": 0.2, "classify__epochs": 1}
    for every in (0, 1):
        train_classifier(tiny_config(run__verify_steps=every, **settings), tmp_path / str(every), QUIET)
    plain, verified = weights(tmp_path / "0"), weights(tmp_path / "1")
    assert plain.keys() == verified.keys()
    assert all(torch.equal(plain[key], verified[key]) for key in plain)


def test_end_to_end_is_the_same(tmp_path: Path, tiny_config: Callable[..., Config]) -> None:
    for every in (0, 2):
        train_segmenter(tiny_config(run__verify_steps=every, segment__ema=0.8), tmp_path / str(every), QUIET)
    plain, verified = weights(tmp_path / "0"), weights(tmp_path / "2")
    assert all(torch.equal(plain[key], verified[key]) for key in plain)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_device_that_computes_wrongly_is_named(
    tmp_path: Path, tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    plain, calls = Loop._backward, []

    def backward(self: Loop, batch: Any, number: int, *, alone: bool = False) -> Any:
        losses = plain(self, batch, number, alone=alone)
        calls.append(number)
        if alone and number == 3:
            if what == "loss":
                losses["loss"] += 1e-6
            else:
                weight = self.step.network.backbone.blocks[1].attn.qkv.weight
                assert weight.grad is not None
                weight.grad[0, 0] += 1e-6
        return losses

    monkeypatch.setattr(Loop, "_backward", backward)
    with pytest.raises(ComputesWrongly, match=r"^cpu of .* computes wrongly: step 4 was computed twice") as found:
        train_classifier(tiny_config(run__verify_steps=2), tmp_path / "run", QUIET)
    assert calls == [0, 1, 1, 2, 3, 3]
    where = "the loss loss is" if what == "loss" else "the gradient of backbone.vit.blocks.1.attn.qkv.weight differs by"
    assert where in found.value.problem
    assert found.value.fix.startswith(f"--resume {tmp_path / 'run'} on another device")
    assert read_checkpoint(tmp_path / "run" / "last.pt")["training"]["step"] == 0


def test_differences() -> None:
    def computed(loss: float, *gradient: float) -> Computed:
        return Computed(
            {"loss": torch.tensor(loss)}, {"w": torch.tensor(gradient, dtype=torch.float32), "unused": None}
        )

    nan, inf = float("nan"), float("inf")
    assert difference_of(computed(nan, inf, nan), computed(nan, inf, nan), exact=True) is None
    assert difference_of(computed(1, 1, 2), computed(1, 1, nan), exact=True) == "the gradient of w differs by up to inf"
    near = computed(1, 1, 2.001)
    assert difference_of(computed(1, 1, 2), near, exact=False) is None
    assert "differs by up to 0.001" in (difference_of(computed(1, 1, 2), near, exact=True) or "")
    assert "the loss loss is 1 and then 2" in (difference_of(computed(1, 1), computed(2, 1), exact=False) or "")
