"""Time and memory of rivals, side by side: what the benchmarks here share.

These machines are noisy, so rivals take turns, several rounds over, and figures are ratios within a round: their
median and their spread over the rounds.
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
"""Where Linux says how much memory a process has."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of each round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Of all rounds."""
        return statistics.median(self.seconds)

    def over(self, other: Times) -> tuple[float, float, float]:
        """Ratio to another's time: median, smallest and largest over the rounds."""
        ratios = [ours / theirs for ours, theirs in zip(self.seconds, other.seconds, strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


def take_turns(rivals: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, Times]:
    """Run every rival once to warm up, then each once a round; ``device`` is where they compute."""
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
    """Wait for a GPU; a CPU is done when it returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def added_memory(device: torch.device, function: Callable[..., Any], *arguments: Any) -> float:
    """Mebibytes that a call adds at its peak to what is held: on a GPU to its allocated memory, in this process;
    on a CPU to the resident memory of a fresh process.

    ``function`` is called twice: first with ``warm_up=True``, which should do the same on the least input, so that
    libraries, weights and their buffers are not counted.
    """
    if device.type == "cuda":
        return _added_on_gpu(device, function, arguments)
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return float(pool.apply(_added, (function, arguments)))


def resident_memory() -> int:
    """Bytes of this process that are in memory now; where there is no /proc, the most there ever were."""
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
    """Start a new peak from what is resident now, where Linux allows that; bytes to measure from."""
    try:
        (STATUS.parent / "clear_refs").write_text("5")
    except OSError:
        return _peak()
    return _status("VmRSS")


def _peak() -> int:
    """Largest resident size so far, bytes.

    Linux's ``getrusage`` gives a child its parent's peak to begin with; /proc does not.
    """
    if STATUS.is_file():
        return _status("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _status(field: str) -> int:
    """A size of this process from /proc, bytes."""
    lines = STATUS.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def few(tagged: TaggedSet, limit: int) -> TaggedSet:
    """At most so many images, evenly spread; 0 keeps all."""
    return replace(tagged, records=tagged.records[:: -(-len(tagged) // limit)]) if limit else tagged


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(device: torch.device) -> str:
    """One line for the results: the device they were computed on, threads, versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return f"{name}, torch {torch.__version__}, Python {platform.python_version()}"
