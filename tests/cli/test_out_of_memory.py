"""Out of memory is an error of the machine, not a bug: status 4, and a fix that makes the command need less."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

Program = Callable[..., Any]
Fail = Callable[[], object]

TRAIN = ("train-cls", "--data", "nowhere", "-o", "nowhere")
TOO_MANY = 1 << 60


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.06 GiB is"
        " free. See documentation for Memory Management"
    )


def in_the_driver() -> None:
    raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")


def in_cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def in_a_worker() -> None:
    raise RuntimeError(
        "Caught _ArrayMemoryError in DataLoader worker process 0.\nUnable to allocate 1.5 GiB for an array"
    )


def at_a_fork() -> None:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def anywhere() -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("fail", "problem"),
    [
        (on_a_gpu, "the GPU has no memory left: 2.50 GiB more were wanted"),
        (in_the_driver, "the GPU has no memory left"),
        (in_cublas, "the GPU has no memory left"),
        (lambda: torch.empty(TOO_MANY), f"this machine has no memory left: {4 * TOO_MANY} bytes more were wanted"),
        (lambda: np.empty(TOO_MANY, np.uint8), "this machine has no memory left: 1.00 EiB more were wanted"),
        (in_a_worker, "this machine has no memory left: 1.5 GiB more were wanted"),
        (at_a_fork, "this machine has no memory left"),
        (anywhere, "this machine has no memory left"),
    ],
    ids=["GPU", "driver", "cuBLAS", "torch", "NumPy", "worker", "fork", "Python"],
)
def test_which_memory_is_full(wsss: Program, monkeypatch: pytest.MonkeyPatch, fail: Fail, problem: str) -> None:
    monkeypatch.setattr("wsss.training.start.train_classifier", lambda *words, **more: fail())
    done = wsss(*TRAIN)
    assert (done.status, done.error()[0]) == (4, problem)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_that_is_full(wsss: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "wsss.training.start.train_classifier", lambda *words, **more: torch.empty(1 << 44, device="cuda")
    )
    done = wsss(*TRAIN)
    assert (done.status, done.error()[0]) == (4, "the GPU has no memory left: 65536.00 GiB more were wanted")


@pytest.mark.parametrize(
    ("words", "place", "fix"),
    [
        (TRAIN, "wsss.training.start.train_classifier", "--batch-size"),
        (("train-cls", "--resume", "run"), "wsss.training.start.resume_classifier", "start a new run"),
        (("train-seg", "-o", "run"), "wsss.training.start.train_segmenter", "--set run.batch_pixels=65536"),
        (("make-pseudo", "run", "-o", "out"), "wsss.models.checkpoint.load_network", "--pamr-stride 2"),
        (
            ("predict", "run", "images", "-o", "out"),
            "wsss.models.checkpoint.load_network",
            "--set run.batch_pixels=65536",
        ),
        (("demo", "-o", "demo"), "wsss.demo.run_demo", "--overwrite --set classify.batch_size=4"),
        (("config", "list"), "wsss.config.preset_names", "free some memory"),
    ],
    ids=["train-cls", "resumed", "train-seg", "make-pseudo", "predict", "demo", "another"],
)
def test_what_takes_less(
    wsss: Program, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], place: str, fix: str
) -> None:
    monkeypatch.setattr(place, lambda *words, **more: on_a_gpu())
    done = wsss(*words)
    assert done.status == 4
    assert fix in done.error()[1]


def test_a_runtime_error_is_a_bug(wsss: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

    monkeypatch.setattr("wsss.config.preset_names", fail)
    with pytest.raises(RuntimeError, match="size of tensor a"):
        wsss("config", "list")
