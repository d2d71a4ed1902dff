"""Measuring time and memory: functions shared by the benchmarks.

Timings on a shared machine are noisy. So every function is timed once in each of several rounds, and figures are ratios
within a round: their median and range over the rounds.
"""

from __future__ import annotations

import gc
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wsss.data.records import TaggedSet

MEBIBYTE = 2**20
CPU = torch.device("cpu")
STATUS = Path("/proc/self/status")
"""The file in which Linux reports the memory of this process."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one function in each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over the rounds, in seconds."""
        return statistics.median(self.seconds)

    def over(self, other: Times) -> tuple[float, float, float]:
        """Ratio to another's time: median, smallest and largest over the rounds."""
        ratios = [ours / theirs for ours, theirs in zip(self.seconds, other.seconds, strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


def take_turns(rivals: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, Times]:
    """Time functions: each runs once to warm up, then once a round. ``device`` is synchronised around each run."""
    for rival in rivals.values():
        rival()
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, rival in rivals.items():
            synchronise(device)
            began = time.perf_counter()
            rival()
            synchronise(device)
            seconds[name].append(time.perf_counter() - began)
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def ratio_cell(ours: Times, theirs: Times) -> str:
    """``median (smallest-largest)`` of the ratio ours / theirs."""
    median, low, high = ours.over(theirs)
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work; no effect on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def added_memory(device: torch.device, function: Callable[..., Any], *arguments: Any) -> float:
    """Mebibytes that a call adds at its peak.

    On a GPU this is measured on the allocated memory of this process, on a CPU on the resident memory of a new process.
    ``function`` is called twice: first with ``warm_up=True``, which should do the same with the smallest input, so that
    libraries, weights and their buffers are not counted.
    """
    if device.type == "cuda":
        return _added_on_gpu(device, function, arguments)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return float(pool.apply(_added, (function, arguments)))


def resident_memory() -> int:
    """Resident memory of this process now, in bytes; without /proc, its largest value so far."""
    return _status("VmRSS") if STATUS.is_file() else _peak()


def _added_on_gpu(device: torch.device, function: Callable[..., Any], arguments: Sequence[Any]) -> float:
    function(*arguments, warm_up=True)
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    function(*arguments, warm_up=False)
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / MEBIBYTE


def _added(function: Callable[..., Any], arguments: Sequence[Any]) -> float:
    function(*arguments, warm_up=True)
    gc.collect()
    before = _forget_peak()
    function(*arguments, warm_up=False)
    return (_peak() - before) / MEBIBYTE


def _forget_peak() -> int:
    """Reset the peak of the resident memory where Linux allows it; returns the bytes to measure from."""
    try:
        (STATUS.parent / "clear_refs").write_text("5")
    except OSError:
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    """Largest resident size so far, in bytes.

    /proc is preferred, because in Linux's ``getrusage`` the peak of a child begins with that of its parent.
    """
    if STATUS.is_file():
        return _status("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _status(field: str) -> int:
    """A memory size of this process from /proc, in bytes."""
    lines = STATUS.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def few(tagged: TaggedSet, limit: int) -> TaggedSet:
    """At most ``limit`` images of the set, evenly spread; 0 keeps all."""
    return replace(tagged, records=tagged.records[:: -(-len(tagged) // limit)]) if limit else tagged


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(device: torch.device) -> str:
    """A line for the results: device, threads, versions of torch and Python."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return f"{name}, torch {torch.__version__}, Python {platform.python_version()}"
