"""The device of a run, its threads, autocast, deterministic algorithms and loader workers."""

from __future__ import annotations

import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from wsss.config import RunSection
from wsss.cores import usable_cores
from wsss.errors import MachineError, UsageError

SHARED_MEMORY = "/dev/shm"
LEAST_SHARED = 1 << 20
"""Bytes of shared memory to start loader processes; batches that do not fit there are sent otherwise."""
AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The torch device of a name.

    Args:
        name: "cpu", "cuda", "cuda:N", or "auto": CUDA where torch finds it, else the CPU.

    Raises:
        UsageError: another name.
        MachineError: this machine has no CUDA device, or none of that number.
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
    """The device of a run, after `be_deterministic` and `limit_threads`.

    A GPU becomes torch's current device, on which threads of torch work that are given none. There float32 matrices are
    multiplied with TF32 ("high"), unless ``run.deterministic`` is set or the precision was changed before.
    """
    be_deterministic(run)
    limit_threads()
    device = pick_device(run.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
        if not run.deterministic and torch.get_float32_matmul_precision() == "highest":
            torch.set_float32_matmul_precision("high")
    return device


def limit_threads() -> None:
    """Let torch compute in as many threads as this process has cores, unless ``OMP_NUM_THREADS`` says otherwise.

    Torch itself sees the CPU affinity, but neither the quota of a container nor the cores of a Slurm job. More threads
    than cores wait for each other. The limit holds for the rest of the process.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))


def autocast(run: RunSection, device: torch.device) -> AbstractContextManager[object]:
    """The autocast context of a run on a device; in float32 a context that does nothing."""
    name = number_type(run, device)
    return nullcontext() if name == "none" else torch.autocast(device.type, dtype=AMP_TYPES[name])


def number_type(run: RunSection, device: torch.device) -> str:
    """What ``run.amp`` means on a device: "none", "bf16" or "fp16"."""
    if run.amp != "auto":
        return run.amp
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "none"


def be_deterministic(run: RunSection) -> None:
    """Restrict torch to deterministic algorithms where ``run.deterministic`` is set.

    The restriction holds for the rest of the process. With it, the same config, data, seed and number of loader workers
    give the same bits on the same model of device with the same versions of torch, timm, NumPy, OpenCV and CUDA. It
    guarantees nothing across devices, versions or numbers of GPUs, nor between different values of ``run.amp``. Where
    torch has no deterministic algorithm for an operation, the operation raises an error. On a CPU results repeat
    without it for a given number of threads.

    Sets the environment variable ``CUBLAS_WORKSPACE_CONFIG`` unless it is set; cuBLAS reads it at its first use in a
    process.
    """
    if not run.deterministic:
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def num_workers(run: RunSection) -> int:
    """Number of loader processes: ``run.workers``, or one fewer than the cores (`usable_cores`), at most 8.

    Without shared memory, which they need, it is 0 unless ``run.workers`` says otherwise.
    """
    if run.workers is not None:
        return run.workers
    return min(8, usable_cores() - 1) if _has_shared_memory() else 0


def _has_shared_memory() -> bool:
    """Whether Linux has shared memory to start loader processes; other systems keep it elsewhere."""
    if sys.platform != "linux":
        return True
    try:
        disk = os.statvfs(SHARED_MEMORY)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize >= LEAST_SHARED and os.access(SHARED_MEMORY, os.W_OK)
