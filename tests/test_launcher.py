"""Which of how many processes this one is."""

from __future__ import annotations

import pytest

from wsss.errors import UsageError
from wsss.launcher import FIRST_PORT, PORTS, Place, find_place, first_host, meeting_point

STEP = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}


def test_alone():
    assert find_place({}) == Place()
    assert find_place({"RANK": "1"}) == Place()  # some clusters set it for purposes of their own


def test_a_batch_script_of_two_tasks_is_one_process():
    assert find_place({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "7"}) == Place()


def test_a_step_of_srun():
    assert find_place(STEP) == Place(rank=3, world=8, local_rank=1, launcher="srun")


def test_torchrun_inside_a_step_of_srun_counts():
    inside = STEP | {"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "2"}
    assert find_place(inside) == Place(rank=5, world=16, local_rank=2, launcher="torchrun")


@pytest.mark.parametrize("broken", [{"SLURM_PROCID": "8"}, {"SLURM_STEP_NUM_TASKS": "0"}, {"SLURM_PROCID": "-1"}])
def test_variables_that_contradict_each_other_are_named(broken: dict[str, str]):
    with pytest.raises(UsageError, match=next(iter(broken))):
        find_place(STEP | broken)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu7", "gpu7"), ("gpu[03-05,9],login", "gpu03"), ("a,b", "a"), ("n[12]-ib,m", "n12-ib"), ("r1-n2.x", "r1-n2.x")],
)
def test_first_host(nodes: str, first: str):
    assert first_host(nodes) == first


def test_processes_of_a_step_meet_at_one_port_and_other_jobs_at_another():
    step = STEP | {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_JOB_ID": "4711"}
    host, port = meeting_point(step)
    assert host == "n1"
    assert FIRST_PORT <= port < FIRST_PORT + PORTS
    assert meeting_point(step | {"SLURM_JOB_ID": "4712"})[1] != port
    assert meeting_point({"MASTER_ADDR": "n9", "MASTER_PORT": "29500"} | step) == ("n9", 29500)
    with pytest.raises(UsageError, match="torchrun"):
        meeting_point({})
