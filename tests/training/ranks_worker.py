"""One of the processes of `test_ranks.py`: ``python ranks_worker.py WORK FOLDER``, started by ``start`` there."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsss.config import Config
from wsss.errors import DataError, WsssError
from wsss.launcher import end_where_joined
from wsss.models.checkpoint import build_from
from wsss.outputs.folder import LabelFolder
from wsss.reporting import Silent
from wsss.training.classify import ClassifyStep
from wsss.training.loop import Loop, to_device
from wsss.training.ranks import Ranks, joined
from wsss.training.segment import SegmentStep
from wsss.training.start import resume_classifier, resume_segmenter, train_classifier, train_segmenter
from wsss.training.step import TrainingStep

CPU = torch.device("cpu")


def make_step(kind: str, config: Config) -> TrainingStep:
    torch.manual_seed(5)
    network = build_from(config, ("bee", "ladybird"), decoder=kind != "train-cls")
    for parameter in network.parameters():  # so that no map and no score is constant
        parameter.data += 0.05 * torch.randn_like(parameter)
    if kind == "train-cls":
        return ClassifyStep(network, config, 10)
    return SegmentStep(network, config, 10, labels_given=kind == "labels", started=False)


def all_gradients(ranks: Ranks, given: dict[str, Any]) -> list[dict[str, Tensor]]:
    """Of several cases."""
    return [gradients(ranks, case) for case in given["cases"]]


def gradients(ranks: Ranks, given: dict[str, Any]) -> dict[str, Tensor]:
    """Gradients of the steps at ``numbers``, one after the other without an optimiser, as `Loop` computes them."""
    step = make_step(given["kind"], given["config"])
    step.ranks = ranks
    found = {}
    loop = Loop.__new__(Loop)
    loop.ranks, loop.step, loop.device, loop.config = ranks, step, CPU, given["config"]
    loop.section, loop._wrapped = step.section, None
    loop.optimizer = torch.optim.SGD(step.network.parameters())
    loop.scaler = torch.amp.GradScaler("cpu", enabled=False)
    batch = {name: values.chunk(ranks.world)[ranks.rank] for name, values in given["batch"].items()}
    for number in given["numbers"]:
        terms = loop._backward(to_device(batch, CPU), number)
        found[f"{number} loss"] = ranks.mean(terms["loss"])
        for name, parameter in step.network.named_parameters():
            found[f"{number} {name}"] = torch.zeros(0) if parameter.grad is None else parameter.grad.clone()
    return found


def train(ranks: Ranks, given: dict[str, Any]) -> list[str]:
    """Train or resume a run; at step ``stop_at`` rank ``who`` sends ``signal`` to itself.

    Returns:
        Names of the images that this process labelled.
    """
    labelled: list[str] = []
    write = LabelFolder.write

    def noted(self: LabelFolder, source: Any, *arguments: Any, **others: Any) -> None:
        labelled.append(source.name)
        write(self, source, *arguments, **others)

    LabelFolder.write = noted  # type: ignore[method-assign]
    if ranks.rank == given.get("who"):
        Loop._backward = signalled(given["stop_at"], given["signal"])  # type: ignore[method-assign]
    functions = {
        "train-cls": train_classifier,
        "train-seg": train_segmenter,
        "resume-cls": resume_classifier,
        "resume-seg": resume_segmenter,
    }
    functions[given["how"]](*given["arguments"], Silent(), ranks=ranks, **given.get("options", {}))  # type: ignore[operator]
    return labelled


def signalled(step: int, number: int) -> Any:
    """``Loop._backward`` that sends a signal to its process at a step."""
    plain = Loop._backward

    def backward(self: Loop, batch: Any, at: int) -> dict[str, Tensor]:
        if at == step:
            os.kill(os.getpid(), number)
        return plain(self, batch, at)

    return backward


def agreements(ranks: Ranks, given: dict[str, Any]) -> dict[str, Any]:
    """What the calls of `Ranks` give."""

    def fails() -> None:
        if ranks.rank == 1:
            raise DataError("broken", "mend it")

    found: dict[str, Any] = {
        "lead": ranks.lead(lambda: f"from {ranks.rank}"),
        "agree": ranks.agree(lambda: ranks.rank),
        "gather": ranks.gather(ranks.rank),
        "collect": ranks.collect([ranks.rank, "x"]),
        "any": [ranks.any(ranks.rank == 1), ranks.any(False)],
        "mean": ranks.mean(torch.tensor([ranks.rank, 3])),
        "share": list(range(5))[ranks.share],
    }
    try:
        ranks.agree(fails)
    except DataError as error:
        found["error"] = (error.problem, error.fix, error.is_said)
    return found


def lonely(ranks: Ranks, given: dict[str, Any]) -> None:
    """Rank 1 dies or hangs, while the others wait for it; how long they did is written."""
    folder = given["folder"]
    with ranks.hold(nullcontext, "--resume RUN"):
        if ranks.rank == 1:
            others = [folder / f"waited-{rank}" for rank in range(ranks.world) if rank != 1]
            wait_for(lambda: not given["hangs"] or all(path.is_file() for path in others))
            os.kill(os.getpid(), signal.SIGKILL)
        began = time.monotonic()
        try:
            ranks.any(True)
        finally:
            (folder / f"waited-{ranks.rank}").write_text(str(time.monotonic() - began))


def wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for another process, at most so long."""
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.02)


def all_are_there(folder: Path) -> None:
    """Wait until all processes have imported torch, so that a short patience does not end with the slowest."""
    (folder / f"there-{os.environ['RANK']}").touch()
    wait_for(lambda: len([*folder.glob("there-*")]) == int(os.environ["WORLD_SIZE"]))


def main(work: str, folder: Path) -> int:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    given = pickle.loads((folder / "given.pkl").read_bytes()) | {"folder": folder}
    all_are_there(folder)
    try:
        with joined(patience=timedelta(seconds=given.pop("patience", 120))) as ranks:
            found = globals()[work](ranks, given)
            torch.save(found, folder / f"found-{ranks.rank}.pt")
    except WsssError as error:
        Path(folder / f"error-{os.environ['RANK']}").write_text(f"{error.problem}\n{error.fix}\n{error.is_said}")
        return error.exit_status
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], Path(sys.argv[2])))
    except BaseException as error:
        end_where_joined(error)
        raise
