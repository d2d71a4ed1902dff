"""The cores that a process may use: affinity, quotas of cgroups in both versions, a Slurm job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wsss.config import RunSection
from wsss.cores import usable_cores
from wsss.machine import limit_threads, num_workers, number_type, prepare_device
from wsss.waiting import SPINS, wait_briefly

ALL = 1000

AFFINITY = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(ALL)), raising=False)


def kernel(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_without_limits_all_cores_of_the_affinity_count(tmp_path: Path) -> None:
    assert usable_cores({}, tmp_path) == ALL


@pytest.mark.parametrize(
    ("maximum", "cores"),
    [
        ("max 100000\n", ALL),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("", ALL),
        ("broken", ALL),
        ("1 0", ALL),
    ],
)
def test_quota_of_cgroup_v2(tmp_path: Path, maximum: str, cores: int) -> None:
    root = kernel(tmp_path, {"proc/self/cgroup": "0::/job/step\n", "sys/fs/cgroup/job/step/cpu.max": maximum})
    assert usable_cores({}, root) == cores


def test_a_quota_above_the_group_counts(tmp_path: Path) -> None:
    root = kernel(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job/step\n",
            "sys/fs/cgroup/job/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/job/step/cpu.max": "max 100000\n",
        },
    )
    assert usable_cores({}, root) == 3


def test_a_container_that_sees_its_group_at_the_top(tmp_path: Path) -> None:
    root = kernel(tmp_path, {"proc/self/cgroup": "0::/../of/the/host\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"})
    assert usable_cores({}, root) == 4


@pytest.mark.parametrize(("quota", "cores"), [("-1", ALL), ("250000", 3)])
def test_quota_of_cgroup_v1(tmp_path: Path, quota: str, cores: int) -> None:
    root = kernel(
        tmp_path,
        {
            "proc/self/cgroup": "11:memory:/job\n4:cpu,cpuacct:/job\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": f"{quota}\n",
            "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
        },
    )
    assert usable_cores({}, root) == cores


@pytest.mark.parametrize(("value", "cores"), [("3", 3), ("", ALL), ("0", ALL), ("many", ALL)])
def test_cores_of_a_slurm_job(tmp_path: Path, value: str, cores: int) -> None:
    assert usable_cores({"SLURM_CPUS_PER_TASK": value}, tmp_path) == cores


@AFFINITY
def test_affinity_of_this_process() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import wsss.cores as c"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(c.usable_cores())"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


def test_threads_and_workers_follow_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("wsss.machine.usable_cores", lambda: 1)
    try:
        limit_threads()
        assert (torch.get_num_threads(), num_workers(RunSection()), num_workers(RunSection(workers=3))) == (1, 0, 3)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        torch.set_num_threads(2)
        limit_threads()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("chosen", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"])
def test_threads_wait_briefly_unless_the_user_chose(chosen: str) -> None:
    mine, free = {chosen: "7"}, dict[str, str]()
    wait_briefly(mine)
    wait_briefly(free)
    assert (mine, free) == ({chosen: "7"}, {"GOMP_SPINCOUNT": str(SPINS)})


def test_the_program_sets_it_before_torch_is_loaded() -> None:
    code = (
        "import os, sys\nfrom wsss.cli import start\n"
        "import wsss.cli.main as program\n"
        "program.run = lambda: print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)\n"
        "start.run()"
    )
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP", "OMP", "KMP"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=bare)
    assert done.stdout == f"{SPINS} False\n"


def test_the_number_type_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed to ask."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for has_it, expected in ((True, "bf16"), (False, "none")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has_it=has_it, **_: has_it)
        assert number_type(RunSection(), gpu) == expected
        assert number_type(RunSection(amp="none"), gpu) == "none"
        assert number_type(RunSection(amp="fp16"), gpu) == "fp16"
        assert number_type(RunSection(), cpu) == "none"
        assert number_type(RunSection(amp="bf16"), cpu) == "bf16"


@pytest.mark.parametrize(
    ("run", "before", "after"),
    [
        (RunSection(device="cuda:1"), "highest", "high"),
        (RunSection(device="cuda:1", deterministic=True), "highest", "highest"),
        (RunSection(device="cuda:1"), "medium", "medium"),
    ],
)
def test_a_gpu_becomes_the_current_device(
    monkeypatch: pytest.MonkeyPatch, run: RunSection, before: str, after: str
) -> None:
    """Pinned memory would otherwise be made on GPU 0."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr("wsss.machine.be_deterministic", lambda run: None)
    monkeypatch.setattr("wsss.machine.limit_threads", lambda: None)
    kept = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(before)
        assert prepare_device(run) == torch.device("cuda:1")
        assert (current, torch.get_float32_matmul_precision()) == ([1], after)
    finally:
        torch.set_float32_matmul_precision(kept)
