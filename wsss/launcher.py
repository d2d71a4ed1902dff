"""Which of how many processes this one is, as ``torchrun`` or ``srun`` say in the environment; nothing is imported.

``torchrun`` sets RANK, WORLD_SIZE and LOCAL_RANK. ``srun`` sets SLURM_PROCID, SLURM_STEP_NUM_TASKS and SLURM_LOCALID,
but a batch script has SLURM_PROCID=0 and SLURM_NTASKS too: one process that would wait for others for ever. So they
count only where SLURM_STEP_ID is set, which is in steps of ``srun`` alone.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from wsss.errors import UsageError

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
FIRST_PORT, PORTS = 20_000, 10_000
"""Ports at which the processes of a step of ``srun`` meet: below those that Linux gives to connections (32,768)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The place of this process among those that were started together.

    Attributes:
        rank: from 0 to ``world - 1``.
        world: number of processes.
        local_rank: from 0, among the processes of this machine: the number of its GPU.
        launcher: "torchrun" or "srun"; empty where the process was started alone.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    launcher: str = ""


def find_place(environment: Mapping[str, str] = os.environ) -> Place:
    """The place of this process.

    Raises:
        UsageError: the variables of a launcher contradict each other.
    """
    if all(name in environment for name in TORCHRUN[:2]):
        return _place("torchrun", TORCHRUN, environment)
    if "SLURM_STEP_ID" in environment and all(name in environment for name in SRUN[:2]):
        return _place("srun", SRUN, environment)
    return Place()


def meeting_point(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Host and port at which the processes meet: as ``torchrun`` says, or on the first machine of a step of ``srun``.

    Raises:
        UsageError: there is no launcher, or it does not say.
    """
    if "MASTER_ADDR" in environment and "MASTER_PORT" in environment:
        return environment["MASTER_ADDR"], _number("MASTER_PORT", environment)
    if "SLURM_STEP_NODELIST" not in environment:
        raise UsageError("neither MASTER_ADDR, MASTER_PORT nor SLURM_STEP_NODELIST is set", "start it with torchrun")
    job, step = _number("SLURM_JOB_ID", environment), _number("SLURM_STEP_ID", environment)
    return first_host(environment["SLURM_STEP_NODELIST"]), FIRST_PORT + (job * 31 + step) % PORTS


def end_where_joined(error: BaseException) -> None:
    """End this program at once if it was not left in order by other processes that train with it: one may be lost.

    The teardown of torch.distributed waits for them, or aborts with a status of its own.

    Args:
        error: ends the program; the traceback of all but SystemExit is printed.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    status = 1
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    else:
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def first_host(nodes: str) -> str:
    """The first of a list of machines as Slurm writes it: "gpu[03-05,9],login" begins with gpu03."""
    found = re.match(r"([^,\[]+)(?:\[(\w+)[^\]]*\]([^,\[]*))?", nodes)
    if found is None:
        raise UsageError(f"SLURM_STEP_NODELIST={nodes!r} names no machine", "start it with torchrun")
    return "".join(part or "" for part in found.groups())


def _place(launcher: str, names: tuple[str, str, str], environment: Mapping[str, str]) -> Place:
    rank, world = (_number(name, environment) for name in names[:2])
    if rank >= world:
        shown = ", ".join(f"{name}={environment[name]}" for name in names[:2])
        raise UsageError(f"{shown}: ranks go from 0 to {world - 1}", f"unset {names[0]}  # or start it with {launcher}")
    local = _number(names[2], environment) if names[2] in environment else 0
    return Place(rank=rank, world=world, local_rank=local, launcher=launcher)


def _number(name: str, environment: Mapping[str, str]) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        raise UsageError(f"{name}={text!r} in the environment: expected a number from 0", f"unset {name}")
    return int(text)
