"""A loss that is not finite: its images are named and saved, and it ends the run or, if configured, is skipped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wsss.data.augment import StepBatches, TrainingImages
from wsss.data.dataset import open_data
from wsss.errors import MachineError
from wsss.models.checkpoint import build_from, read_checkpoint
from wsss.reporting import Silent
from wsss.training.bad_loss import MOST_IN_A_ROW, BadLoss, LossWatch
from wsss.training.classify import ClassifyStep
from wsss.training.loop import Loop, RunContext, steps_of

CPU = torch.device("cpu")
Begin = Callable[..., Loop]


@pytest.fixture
def begin(tmp_path: Path, tiny_config: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """A loop of six steps, some with a bad loss; with ``deferred`` losses are checked later, as on CUDA."""
    plain = ClassifyStep.forward

    def loop(bad: tuple[int, ...], by: float, *, deferred: bool = False, reporter: Any = None, **changes: Any) -> Loop:
        def forward(self: Any, batch: Any, at: int) -> dict[str, Tensor]:
            terms = plain(self, batch, at)
            return {name: value * by if at in bad else value for name, value in terms.items()}

        monkeypatch.setattr(ClassifyStep, "forward", forward)
        config = tiny_config(**{"classify__ema": 0.5, "model__drop_path": 0.2} | changes)
        tagged = open_data(scenes, split="train")
        run = tmp_path / "run"
        run.mkdir()
        images = TrainingImages(tagged, config.augment, seed=config.run.seed)
        network = build_from(config, tagged.classes, decoder=False)
        step = ClassifyStep(network, config, steps_of(images, config.classify))
        made = Loop(RunContext(run, config, CPU, reporter or Silent()), step, images, None)
        made.bad_steps.watch.looks = not deferred
        return made

    return loop


class Saying(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def learnt(loop: Loop) -> list[Tensor]:
    """Weights, moving average and the states of optimiser and gradient scaler."""
    memory = [value for state in loop.optimizer.state.values() for value in state.values()]
    memory += [torch.tensor(value) for value in loop.scaler.state_dict().values()]
    return [value.detach().clone() for value in (*loop.step.network.parameters(), *loop.shown.parameters(), *memory)]


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize(("by", "said"), [(math.nan, "the loss is nan"), (math.inf, "the loss is inf")])
def test_the_images_are_named_and_saved(begin: Begin, by: float, said: str, deferred: bool) -> None:
    loop = begin((4,), by, deferred=deferred, classify__checkpoint_minutes=1e-9)
    with pytest.raises(BadLoss) as caught:
        loop.train()
    assert isinstance(caught.value, MachineError)
    saved = torch.load(loop.run / "bad-batch.pt", weights_only=True)
    keys = next(iter(StepBatches(24, 8, 4, 5, loop.config.run.seed)))
    names = [loop.images.tagged.records[index].name for _, index in keys]
    assert (saved["step"], saved["names"]) == (5, names)
    for row, key in enumerate(keys):
        sample = loop.images[key]
        assert saved["batch"].keys() == sample.keys() == {"image", "present"}
        assert all(torch.equal(saved["batch"][name][row], value) for name, value in sample.items())
    shown = f"at step 5 for {', '.join(names[:4])} and 4 more; {loop.run / 'bad-batch.pt'} holds the batch"
    if deferred:
        assert caught.value.problem == f"{loop.run}: the loss or its gradient is not finite {shown}"
    else:
        assert caught.value.problem == f"{loop.run}: {said} {shown}"
        assert set(saved["loss"]) == {"loss", "classification"}
    assert "--lr" in caught.value.fix
    assert caught.value.fix.endswith("--set classify.on_bad_loss=skip")
    last = read_checkpoint(loop.run / "last.pt")
    assert last["training"]["step"] == 4  # the step before the bad one
    assert all(value.isfinite().all() for value in last["network"].values())


def test_no_checkpoint_holds_what_a_bad_step_made(begin: Begin) -> None:
    """With deferred checks, all steps are checked before a checkpoint is written."""
    loop = begin((2,), math.nan, deferred=True, classify__checkpoint_minutes=1e-9, classify__epochs=4)
    with pytest.raises(BadLoss, match="at step 3 "):
        loop.train()
    assert loop.state.step == 3
    assert read_checkpoint(loop.run / "last.pt")["training"]["step"] == 2


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("amp", ["none", "fp16"])
def test_a_skipped_step_changes_nothing(begin: Begin, amp: str, clip_norm: float) -> None:
    reporter = Saying()
    changes = {"run__amp": amp, "classify__clip_norm": clip_norm}
    loop = begin((1, 4), math.nan, classify__on_bad_loss="skip", reporter=reporter, **changes)
    plain, untouched = loop._step, []

    def step(batch: Any) -> None:
        before = learnt(loop)
        plain(batch)
        after = learnt(loop)
        untouched.append(len(before) == len(after) and all(map(torch.equal, before, after)))

    loop._step = step  # type: ignore[method-assign]
    loop.train()
    assert untouched == [False, True, False, False, True, False]
    assert loop.state.step == 6
    row = json.loads((loop.run / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["skipped"] == 2
    assert math.isfinite(row["loss"])
    assert [text.split(";")[0][:45] for text in reporter.said if text.startswith("skipped")] == [
        "skipped a step: the loss is nan at step 2 for",
        "skipped a step: the loss is nan at step 5 for",
    ]
    assert torch.load(loop.run / "bad-batch.pt", weights_only=True)["step"] == 5  # the latest


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_gradient_that_is_not_finite(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, clip_norm: float, deferred: bool
) -> None:
    """The loss is finite, its gradient (of a root at 0) is not; the weights after that step are not saved."""
    loop = begin((), 1.0, deferred=deferred, classify__clip_norm=clip_norm)
    plain = loop.step.forward

    def forward(batch: Any, at: int) -> dict[str, Tensor]:
        terms = plain(batch, at)
        weight: Any = loop.step.network.readout.head.weight
        return terms if at != 1 else terms | {"root": (0 * weight).abs().sum().sqrt()}

    monkeypatch.setattr(loop.step, "forward", forward)
    said = "the loss or its gradient is" if deferred else "the gradient is"
    with pytest.raises(BadLoss, match=f": {said} not finite at step 2 "):
        loop.train()
    last = read_checkpoint(loop.run / "last.pt")
    assert last["training"]["step"] == 0
    assert all(value.isfinite().all() for value in last["network"].values())


def test_too_many_bad_steps_in_a_row_end_the_run(begin: Begin) -> None:
    loop = begin((*range(1, 30),), math.nan, classify__on_bad_loss="skip", classify__epochs=8)
    with pytest.raises(BadLoss, match=f"at step {1 + MOST_IN_A_ROW + 1} "):
        loop.train()


def test_a_deferred_watch_keeps_the_first_bad_step(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = LossWatch(CPU, "stop")
    watch.looks = False
    assert watch.first_bad() is None
    for step, value in enumerate([1.0, math.inf, 2.0, math.nan]):
        assert watch.allows(torch.tensor(value), step)
    assert watch.first_bad() == 1
