"""Images/s of training steps by the way in which torch's threads wait, alone and beside busy processes.

    python benchmarks/threads.py
    python benchmarks/threads.py --spins 100 --spins 10000 --rounds 5

One process for each way of waiting trains DeiT-Tiny with random weights on random images (`step.py`, the classifier's
step). They take turns: in a round each runs for some seconds while all others are stopped. Busy processes count numbers
and do nothing else. The first column is the ratio to two threads that wait as torch does by itself, in the same round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from signal import SIGCONT, SIGSTOP
from typing import Annotated

import typer
from measuring import CPU, machine, table

from wsss.waiting import SPINS, VARIABLE

TRAINS = """
import sys
from itertools import count
from step import make_step, random_batch
from measuring import CPU
from wsss.config import resolve

batch, side = int(sys.argv[1]), int(sys.argv[2])
config = resolve("voc-animals-cpu", (), {"model.weights": "none", "model.backbone": "deit_tiny_patch16_224"})
step = make_step("classify", config, [random_batch(batch, 20, side, CPU, 0)], CPU)
step()
for done in count():
    print(done, flush=True)
    step()
"""
COUNTS = "while True: pass"
PLAIN = "as torch does"


def settings(spins: list[int], threads: int) -> dict[str, dict[str, str]]:
    """The environment of each way of waiting, by its name."""
    many = {"OMP_NUM_THREADS": str(threads)}
    counted = {f"{count} turns": {**many, VARIABLE: str(count)} for count in spins}
    return {
        f"{threads} threads, {PLAIN}": many,
        f"{threads} threads, passive": {**many, "OMP_WAIT_POLICY": "PASSIVE"},
        **{f"{threads} threads, {name}": variables for name, variables in counted.items()},
        "1 thread": {"OMP_NUM_THREADS": "1"},
    }


class Training:
    """A process that trains while it is not stopped, and says each step."""

    def __init__(self, variables: Mapping[str, str], batch: int, side: int) -> None:
        chosen = {name: value for name, value in os.environ.items() if name != VARIABLE} | dict(variables)
        command = [sys.executable, "-c", TRAINS, str(batch), str(side)]
        folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=folder, env=chosen)
        self._line()
        self._process.send_signal(SIGSTOP)

    def _line(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("a training has ended")

    def steps_per_second(self, seconds: float) -> float:
        """Run for about this long; whole steps alone are counted."""
        self._process.send_signal(SIGCONT)
        self._line()
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            self._line()
            steps += 1
        taken = time.perf_counter() - began
        self._process.send_signal(SIGSTOP)
        return steps / taken

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Some processes that do nothing but count."""
    processes = [subprocess.Popen([sys.executable, "-c", COUNTS]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main(
    spins: Annotated[list[int] | None, typer.Option(help="Turns of the waiting loop to try.")] = None,
    threads: int = 2,
    batch: int = 8,
    side: int = 224,
    beside: Annotated[list[int] | None, typer.Option(help="Numbers of busy processes.")] = None,
    seconds: Annotated[float, typer.Option(help="Of one turn.")] = 6,
    rounds: int = 3,
) -> None:
    """Print one table for each number of busy processes."""
    print(f"### Steps of deit_tiny_patch16_224, {batch} images of {side} px ({machine(CPU)})", flush=True)
    rivals = {name: Training(variables, batch, side) for name, variables in settings(spins or [SPINS], threads).items()}
    try:
        for count in beside or [0, 1, 2]:
            with busy(count):
                speeds: dict[str, list[float]] = {name: [] for name in rivals}
                for _ in range(rounds):
                    for name, rival in rivals.items():
                        speeds[name].append(batch * rival.steps_per_second(seconds))
            first = next(iter(speeds.values()))
            rows = []
            for name, speed in speeds.items():
                ratios = [one / plain for one, plain in zip(speed, first, strict=True)]
                ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
                rows.append([name, f"{statistics.median(speed):.1f}", ratio])
            print(f"\nBeside {count} busy processes:\n")
            print(table(["threads wait", "images/s", f"over {PLAIN}"], rows), flush=True)
    finally:
        for rival in rivals.values():
            rival.end()


if __name__ == "__main__":
    typer.run(main)
