"""If a loader process ends unexpectedly, an error names the image that it was reading."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, dataloader

from wsss.config import AugmentSection
from wsss.data.augment import StepBatches, TrainingImages
from wsss.data.dataset import open_data
from wsss.data.images import read_image
from wsss.data.loading import read_ahead, reading
from wsss.data.scaled import ScaledImages, load_batches
from wsss.errors import Interrupted, MachineError
from wsss.reporting import Silent
from wsss.training.start import train_classifier

SECONDS = 10.0
"""Seconds within which the end of a loader process must be detected."""


@pytest.fixture(autouse=True)
def poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        dataloader._MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,)
    )  # poll the workers every 0.2 s instead of 5 s


def killed(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def left() -> None:
    os._exit(3)


class EndsWorker(Dataset[Any]):
    """The numbers 0 to 11; reading number 7 ends the loader process."""

    def __init__(self, how: Callable[[], None]) -> None:
        self.how = how

    def __len__(self) -> int:
        return 12

    def __getitem__(self, key: int) -> int:
        reading(f"street/{key:04d}")
        if key == 7 and multiprocessing.parent_process() is not None:
            self.how()
        return key


def assert_childless() -> None:
    """Check that no child process is left, neither running nor as a zombie."""
    assert multiprocessing.active_children() == []
    zombies = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/stat")
        if stat(path)[1] == str(os.getpid()) and stat(path)[0] == "Z"
    ]
    assert zombies == []


def stat(path: Path) -> tuple[str, str]:
    """State and parent of a process; empty if it has ended."""
    try:
        state, parent = path.read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "", ""
    return state, parent


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (killed, "was killed by SIGKILL"),
        (partial(killed, signal.SIGSEGV), "was killed by SIG"),
        (left, "left with status 3"),
    ],
)
def test_a_dead_worker_is_named_and_waited_for(how: Callable[[], None], said: str) -> None:
    handler = signal.getsignal(signal.SIGCHLD)
    began, seen = time.monotonic(), list[int]()
    with pytest.raises(MachineError) as caught:
        seen.extend(read_ahead(EndsWorker(how), 2))
    assert seen == [*range(len(seen))]  # numbers that the worker has read but not sent are lost
    assert len(seen) <= 7
    assert caught.value.problem.startswith(f"street/0007: the loader process that read it {said}")
    assert caught.value.exit_status == 4
    assert time.monotonic() - began < SECONDS
    assert signal.getsignal(signal.SIGCHLD) is handler
    assert_childless()


def test_terminated_with_its_job() -> None:
    with pytest.raises(Interrupted) as caught:
        list(read_ahead(EndsWorker(partial(killed, signal.SIGTERM)), 2))
    assert caught.value.exit_status == 75
    assert_childless()


def test_a_dead_worker_does_not_interrupt_the_main_thread() -> None:
    """Torch's own SIGCHLD handler would raise inside a step or while a checkpoint is written."""
    read = read_ahead(EndsWorker(killed), 2)
    assert next(read) == 0
    until = time.monotonic() + 0.7  # the worker ends in this time
    while time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(MachineError, match=r"street/0007"):
        list(read)
    assert_childless()


def test_signals_of_a_terminal_do_not_reach_the_workers() -> None:
    read = read_ahead(EndsWorker(lambda: None), 2)
    assert [next(read), next(read)] == [0, 1]  # both have begun
    for child in multiprocessing.active_children():
        for number in (signal.SIGINT, signal.SIGUSR1):
            os.kill(int(child.pid or 0), number)
    assert [*read] == [*range(2, 12)]
    assert_childless()


def read_or_die(path: Path) -> Any:
    """Read an image, or be killed, as by the kernel when an image fills the memory."""
    if path.stem == "train_00005" and multiprocessing.parent_process() is not None:
        killed()
    return read_image(path)


def test_training_and_labelling_name_the_image(
    scenes: Path, tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged = open_data(scenes, split="train")
    monkeypatch.setattr("wsss.data.records.decode_image", lambda content, where, levels: read_or_die(where))
    with pytest.raises(MachineError, match=r"^train_00005: the loader process that read it was killed by SIGKILL"):
        list(load_batches(ScaledImages(tagged.records, (32,), (8, 8), 4 * 32 * 32), 2))
    monkeypatch.setattr("wsss.data.records.decode_image", lambda content, where, levels: read_or_die(where))
    images = TrainingImages(tagged, AugmentSection(size=16), seed=0)
    with pytest.raises(MachineError, match=r"^train_00005: "):
        list(read_ahead(images, 1, batches=StepBatches(len(images), 8, 0, 3, 0)))
    with pytest.raises(MachineError, match=r"^train_00005: "):
        train_classifier(tiny_config(run__workers=1), tmp_path / "run", Silent())
    assert_childless()


def test_long_names_and_names_of_other_letters() -> None:
    class Named(EndsWorker):
        def __getitem__(self, key: int) -> int:
            reading(("ü/" if key == 7 else "x") * 900)
            if key == 7:
                self.how()
            return key

    with pytest.raises(MachineError) as caught:
        list(read_ahead(Named(killed), 1))
    assert caught.value.problem.startswith("ü/ü/")
    assert "x" not in caught.value.problem.split(":")[0]


def test_without_workers_nothing_is_shared() -> None:
    batches = read_ahead(EndsWorker(killed), 0)
    assert np.array_equal(list(batches), np.arange(12))
    assert torch.utils.data.get_worker_info() is None
