"""Which jobs a command becomes, and how they are handed to Slurm."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.cluster.resources import Resources
from wsss.cluster.script import Job, script_of
from wsss.errors import MachineError, UsageError
from wsss.files import write_whole

TRAINS = ("train-cls", "train-seg")
"""Commands whose processes train together, and that ``--resume-or-start`` continues."""
SHARED = ("make-pseudo", "predict")
"""Commands whose work can be divided into shards, and that the same command continues."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command to be submitted, as its own parser reads it.

    Attributes:
        words: the command, without "wsss".
        options: its parameters by name, as they were given.
    """

    words: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def command(self) -> str:
        """Its name."""
        return self.words[0]

    @property
    def output(self) -> str | None:
        """The run or folder that it writes; None where it was not said."""
        found = self.options.get("output") or self.options.get("resume")
        return None if found is None else str(found)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that Slurm has.

    Attributes:
        job: the job.
        number: that Slurm gave it.
    """

    job: Job
    number: str


def jobs_of(request: Request, resources: Resources, shards: int = 0, position: int = 0) -> list[Job]:
    """The jobs of a command, each of which begins when the one before is done.

    Args:
        request: the command.
        resources: that a training asks for, or a command that is divided among its processes; one shard asks for one
            process with at most one GPU, every other command for one process without.
        shards: an array of so many, and a job that merges them; 0 divides nothing.
        position: of the command among others, for the names of files where it has no ``-o``.

    Raises:
        UsageError: it has no ``-o``, or says itself what is to be added.
    """
    words, command = request.words, request.command
    if command not in (*TRAINS, *SHARED):
        name = request.output or f"wsss-{command}{f'-{position}' if position else ''}"
        return [Job(words=words, name=name, resources=resources.of_one_process(gpus=False))]
    if request.output is None:
        raise UsageError(f"{command} was given no output folder", f"wsss submit -- {shlex.join(words)} -o OUT")
    if request.options.get("shard"):
        raise UsageError("--shard is added to the command by --array", "leave out --shard")
    out = request.output
    if command in TRAINS:
        goes_on = request.options.get("resume") or request.options.get("resume_or_start")
        again = () if goes_on else ("--resume-or-start",)
        return [Job(words=(*words, *again), name=out, resources=resources, work=out, together=True)]
    if not shards:
        return [Job(words=words, name=out, resources=resources, work=out)]
    alone = resources.of_one_process
    return [
        Job(words=words, name=out, resources=alone(gpus=True), work=out, shards=shards),
        Job(words=("merge", out), name=f"{out}.merge", resources=alone(gpus=False)),
    ]


def submit(jobs: Sequence[Job], python: str) -> list[Submitted]:
    """Write the scripts of jobs beside their output and hand them to Slurm, each to begin when the one before is done.

    Args:
        jobs: in their order.
        python: the interpreter that has this program.

    Raises:
        MachineError: there is no Slurm, or it refuses a script.
        DiskError: a script cannot be written.
    """
    if shutil.which("sbatch") is None:
        raise MachineError("sbatch was not found: this machine hands no jobs to Slurm", "wsss submit --dry-run ...")
    done: list[Submitted] = []
    for job in jobs:
        job.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(job.path, script_of(job, python).encode())
        done.append(Submitted(job, _sbatch(job, done[-1].number if done else None)))
    return done


def sbatch_words(job: Job, after: str | None) -> list[str]:
    """The command that submits a script; ``after`` is the number of the job that must be done first."""
    waits = [] if after is None else [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"]
    return ["sbatch", "--parsable", *waits, str(job.path)]


def _sbatch(job: Job, after: str | None) -> str:
    words = sbatch_words(job, after)
    ran = subprocess.run(words, capture_output=True, text=True)
    if ran.returncode:
        raise MachineError(f"Slurm refuses {job.path}: {ran.stderr.strip()}", shlex.join(words))
    return ran.stdout.strip().partition(";")[0]  # a cluster's name may follow


def read_commands(path: Path | None, text: str) -> list[tuple[str, ...]]:
    """The commands of a file, one a line, with or without "wsss" before it; lines may go on after a backslash.

    Args:
        path: of the file, for messages.
        text: its content.

    Raises:
        UsageError: there are none, or a line's quotes do not close.
    """
    try:
        lines = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    except ValueError as error:
        raise UsageError(f"{path or 'standard input'}: {error}", "write each command as in a shell") from error
    commands = [tuple(words[1:] if words[0] == "wsss" else words) for words in lines if words]
    if not commands:
        raise UsageError(f"{path or 'standard input'}: holds no command", "one command a line: train-cls --data ...")
    return commands
