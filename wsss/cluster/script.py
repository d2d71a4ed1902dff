"""The text of a batch script: plain bash that anybody can read, change and hand to sbatch.

A job that can be resumed saves and leaves with status 75 when Slurm signals it: before the end of its time, or when it
is preempted. Its script then puts it back into the queue, unless that was done three times in a row without progress.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsss.cluster.resources import Resources
from wsss.errors import UsageError

MOST_REQUEUES = 3
"""Requeues in a row without progress."""
AGAIN = "75 | 138 | 143"
"""Exit statuses that ask for a requeue: saved and left; ended by SIGUSR1 or SIGTERM before it could catch them."""
TASK = "$SLURM_ARRAY_TASK_ID"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A command of this program as a job.

    Attributes:
        words: the command, without "wsss".
        name: of its files: NAME.sbatch, NAME.log and, where it can be resumed, NAME.requeues.
        resources: what it asks for.
        work: the run or folder whose progress decides on requeues; None where it cannot be resumed.
        shards: of an array, one task a shard; 0 makes no array.
        together: whether the end of one process ends all.
    """

    words: tuple[str, ...]
    name: str
    resources: Resources
    work: str | None = None
    shards: int = 0
    together: bool = False

    @property
    def path(self) -> Path:
        """Where its script lies."""
        return Path(f"{self.name}.sbatch")


def script_of(job: Job, python: str) -> str:
    """The batch script of a job.

    Args:
        job: the job.
        python: the interpreter that has this program.
    """
    head = [
        f"--job-name={Path(job.name).name}",
        f"--output={job.name.replace('%', '%%')}{'.%a' if job.shards else ''}.log",
        "--open-mode=append",
        *([f"--array=0-{job.shards - 1}"] if job.shards else []),
        *(["--requeue", f"--signal=USR1@{job.resources.lead}"] if job.work is not None else []),
        *job.resources.lines(),
    ]
    parts = ["#!/bin/bash", *(f"#SBATCH {_quoted(option)}" for option in head), ""]
    parts += _resumable(job, python) if job.work is not None else [f"exec {_command(python, job.words)}"]
    return "\n".join(parts) + "\n"


def _resumable(job: Job, python: str) -> list[str]:
    """The lines that run a command and, where it was asked to leave, put its job back into the queue."""
    shard = f' --shard "{TASK}/{job.shards}"' if job.shards else ""
    requeues = shlex.quote(job.name) + (f'."{TASK}"' if job.shards else "") + ".requeues"
    number = '"${SLURM_ARRAY_JOB_ID}_' + TASK + '"' if job.shards else '"$SLURM_JOB_ID"'
    step = ["srun", *(["--kill-on-bad-exit=1"] if job.together else [])]
    if job.resources.cpus is not None:
        step.append(f"--cpus-per-task={job.resources.cpus}")  # srun does not take it from sbatch
    return [
        f'[ "${{SLURM_RESTART_COUNT:-0}}" -gt 0 ] || rm -f {requeues}',
        f"{shlex.join(step)} {_command(python, job.words)}{shard}",
        "status=$?",
        f"case $status in {AGAIN}) ;; *) exit $status ;; esac",
        "",
        "# It was asked to leave before it was done: back into the queue, as long as it gets on.",
        f"now=$({_command(python, ('status', str(job.work)))}{shard} 2>/dev/null)",
        f'same=$(tail -n {MOST_REQUEUES} {requeues} 2>/dev/null | grep -cxF -- "$now")',
        f'if [ "$same" -ge {MOST_REQUEUES} ]; then',
        f'    echo "{MOST_REQUEUES} requeues without progress (${{now:-nothing begun}}): no more of them" >&2',
        "    exit $status",
        "fi",
        f'echo "$now" >>{requeues}',
        f"scontrol requeue {number} && sleep 120  # Slurm ends this script meanwhile",
        "exit $status",
    ]


def _command(python: str, words: Iterable[str]) -> str:
    return shlex.join([python, "-m", "wsss", *words])


def _quoted(option: str) -> str:
    """An option as Slurm reads it in a script.

    Raises:
        UsageError: it cannot be written there.
    """
    if any(letter in option for letter in '"\n\\'):
        raise UsageError(f"{option!r}: Slurm reads no such name in a script", "choose another -o")
    return f'"{option}"' if any(letter.isspace() or letter == "#" for letter in option) else option
