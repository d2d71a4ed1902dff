"""The cores that this process may use: fewer than the machine has in a container, in a job, or after ``taskset``.

Sources: the kernel's documents on `cgroup v2 <https://docs.kernel.org/admin-guide/cgroup-v2.html>`_ (``cpu.max``) and
`v1 <https://docs.kernel.org/scheduler/sched-bwc.html>`_ (``cpu.cfs_quota_us``), and Slurm's ``sbatch`` on
``SLURM_CPUS_PER_TASK``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path("/")


def usable_cores(environment: Mapping[str, str] = os.environ, root: Path = ROOT) -> int:
    """The number of cores that this process may use, at least 1.

    It is the least of: the cores of its CPU affinity, the CPU quota of its cgroups (a part of a core counts as one) and
    ``SLURM_CPUS_PER_TASK``. Processes that ``torchrun`` started on a machine (``LOCAL_WORLD_SIZE``) share them.

    Args:
        environment: variables.
        root: the folder that holds ``proc`` and ``sys``; tests name another.
    """
    cores: list[float] = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    cores += _quotas(root)
    job = environment.get("SLURM_CPUS_PER_TASK", "")
    if job.isdecimal() and int(job):
        cores.append(int(job))
    together = environment.get("LOCAL_WORLD_SIZE", "")
    return max(1, math.ceil(min(cores)) // (int(together) if together.isdecimal() and int(together) else 1))


def _quotas(root: Path) -> Iterator[float]:
    """The CPU quotas, in cores, of the cgroups that hold this process and of the groups above these."""
    groups = _read(root / "proc/self/cgroup").splitlines()
    for number, controllers, path in (line.split(":", 2) for line in groups if line.count(":") > 1):
        if number == "0" and not controllers:
            for folder in _upwards(root / "sys/fs/cgroup", path):
                yield from _cores(_read(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / "sys/fs/cgroup/cpu", path):
                yield from _cores([_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")])


def _upwards(top: Path, path: str) -> Iterator[Path]:
    """The folders of a cgroup and of those above it, up to the top.

    In a container the path may be the host's, which is not there, while the top is the container's own group.
    """
    folder = top / path.strip("/")
    while folder != top and top in folder.parents:
        yield folder
        folder = folder.parent
    yield top


def _cores(quota_period: list[str]) -> Iterator[float]:
    """Quota over period in cores; nothing where there is no quota ("max", or -1 in v1)."""
    if len(quota_period) == 2 and all(value.isdecimal() and int(value) for value in quota_period):
        yield int(quota_period[0]) / int(quota_period[1])


def _read(path: Path) -> str:
    """The text of a file of the kernel; empty where it cannot be read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
