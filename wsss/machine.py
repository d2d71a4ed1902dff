"""Where a run computes: the device, its autocast and its loader workers."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, nullcontext

import torch

from wsss.config import RunSection
from wsss.errors import MachineError, UsageError

AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of ``auto|cpu|cuda[:N]``.

    Raises:
        UsageError: no such name.
        MachineError: CUDA was asked for and this machine has none, or fewer devices.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if not re.fullmatch("cpu|cuda(:[0-9]+)?", name):
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:N", "--device auto")
    if kind == "cuda" and not torch.cuda.is_available():
        raise MachineError(f"--device {name}: this machine has no CUDA device that torch can use", "--device cpu")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise MachineError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA device(s)", "--device cuda:0"
        )
    return torch.device(name)


def prepare_device(run: RunSection) -> torch.device:
    """The device of a run, with deterministic algorithms where it asks for them; see both functions."""
    be_deterministic(run)
    return pick_device(run.device)


def autocast(run: RunSection, device: torch.device) -> AbstractContextManager[object]:
    """The autocast context of a run, or one that does nothing."""
    if run.amp == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype=AMP_TYPES[run.amp])


def be_deterministic(run: RunSection) -> None:
    """Let torch use deterministic algorithms alone, if the run asks for it; later runs of the process stay so.

    It promises: the same config, data, seed and number of loader workers give the same bits again on the same model of
    device with the same versions of torch, timm, NumPy, OpenCV and CUDA. It promises nothing across devices, versions
    or numbers of GPUs, and nothing of `--amp` against none. A step for which torch has no deterministic algorithm
    stops with an error instead of going on. On a CPU results repeat without it for a given number of threads.

    Sets ``CUBLAS_WORKSPACE_CONFIG`` where nobody has; cuBLAS reads it at its first use in a process.
    """
    if not run.deterministic:
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def num_workers(run: RunSection) -> int:
    """Loader processes: as configured, or one a core but one, at most 8."""
    if run.workers is not None:
        return run.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, cores - 1)
