"""What a job asks of Slurm."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from wsss.errors import UsageError

EARLY_SECONDS = 60
"""Slurm may send the signal before the end of a job's time so many seconds earlier than it was asked for."""
TIME = re.compile(r"(?:(?P<days>\d+)-(?P<of_days>\d+(?::\d+){0,2})|(?P<plain>\d+(?::\d+){0,2}))", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """What a job asks for; None leaves it to the cluster.

    Attributes:
        time: limit, as Slurm writes it: minutes, "H:M:S", "D-H".
        nodes: machines.
        gpus: of each machine; then one process a GPU.
        tasks: processes of each machine where there are no GPUs.
        cpus: cores of each process.
        lead: seconds before the end of the time at which Slurm asks the job to save and leave.
        options: further options of sbatch, such as "--partition=gpu".
    """

    time: str | None = None
    nodes: int = 1
    gpus: int = 0
    tasks: int = 1
    cpus: int | None = None
    lead: int = 120
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse times that Slurm does not read, and those in which nothing could be done.

        Raises:
            UsageError: as said.
        """
        if self.gpus and self.tasks > 1:
            raise UsageError(
                f"--gpus {self.gpus} and --tasks {self.tasks}: there is one process a GPU", "leave out --tasks"
            )
        seconds = None if self.time is None else seconds_of(self.time)
        if seconds is not None and seconds <= self.lead + EARLY_SECONDS:
            raise UsageError(
                f"--time {self.time} is {seconds} s: the job is told to leave {self.lead} s before its end, or up to"
                f" {EARLY_SECONDS} s earlier, so it would be requeued without having done anything",
                f"a longer --time, or --lead {max(seconds // 4, 1)}",
            )
        for option in self.options:
            if not re.fullmatch(r"-[^\n]*", option):
                raise UsageError(f"--sbatch {option!r}: expected an option of sbatch", "--sbatch=--partition=NAME")

    def of_one_process(self, *, gpus: bool) -> Resources:
        """For a job of one process, with a GPU if others have some and ``gpus`` says so."""
        return replace(self, nodes=1, tasks=1, gpus=min(self.gpus, 1) if gpus else 0)

    def lines(self) -> list[str]:
        """As options of sbatch."""
        wanted = {
            "time": self.time,
            "nodes": self.nodes,
            "ntasks-per-node": self.gpus or self.tasks,
            "gpus-per-node": self.gpus or None,
            "cpus-per-task": self.cpus,
        }
        return [f"--{name}={value}" for name, value in wanted.items() if value is not None] + list(self.options)


def seconds_of(time: str) -> int:
    """The seconds of a limit: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises:
        UsageError: it is none.
    """
    found = TIME.fullmatch(time)
    if found is None:
        raise UsageError(f"--time {time}: expected minutes, H:M:S or D-H:M", "--time 24:00:00")
    parts = [int(part) for part in (found["of_days"] or found["plain"]).split(":")]
    if found["days"] is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return ((int(found["days"]) * 24 + hours) * 60 + minutes) * 60 + seconds
    hours, minutes, seconds = {1: [0, *parts, 0], 2: [0, *parts], 3: parts}[len(parts)]
    return (hours * 60 + minutes) * 60 + seconds
