"""Commands that srun or torchrun start as several processes: they work together, or are refused."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from wsss.config import to_yaml
from wsss.models.checkpoint import load_network


def start_two(warm: Any, *command: object) -> list[Any]:
    """Start both ranks of a command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        warm.start(*command, environment=meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(2)
    ]


@pytest.mark.parametrize(
    "command", [("demo",), ("robustness", "run", "--suite", "shuffle"), ("analyze", "run")], ids=lambda one: str(one[0])
)
def test_the_work_of_one_process_is_refused(warm: Any, command: tuple[str, ...], tmp_path: Path) -> None:
    ranks = start_two(warm, *command, "-o", tmp_path / "out")
    assert [rank.wait() for rank in ranks] == [2, 2]
    problem, fix = ranks[0].error_and_fix
    assert f"torchrun started 2 processes of wsss {command[0]}" in problem
    assert "without torchrun" in fix
    assert ranks[1].error == ""
    assert not (tmp_path / "out").exists()


def test_the_ceiling_in_two_processes(warm: Any, tmp_path: Path, tiny_config: Any) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(tiny_config(segment__epochs=1)))
    command = ("ceiling", "-c", tmp_path / "config.yaml", "-o")
    ranks = start_two(warm, *command, tmp_path / "two")
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].error + ranks[1].error
    assert ranks[1].error == ""
    assert "mIoU" in ranks[0].error
    warm.run(*command, tmp_path / "one")
    ours, theirs = (load_network(tmp_path / name)[0].state_dict() for name in ("two", "one"))
    assert max(float((value - theirs[name]).abs().max()) for name, value in ours.items()) < 5e-3


def test_a_score_of_two_processes(warm: Any, tmp_path: Path, scenes: Path) -> None:
    """The last of both merges; without a folder for the counts it is refused."""
    command = ("evaluate", scenes / "masks", "--data", scenes, "--split", "val")
    refused = start_two(warm, *command)
    assert [rank.wait() for rank in refused] == [2, 2]
    assert "-o OUT" in refused[0].error_and_fix[1]
    ranks = start_two(warm, *command, "-o", tmp_path / "counts")
    assert [rank.wait() for rank in ranks] == [0, 0], ranks[0].error + ranks[1].error
    assert json.loads((tmp_path / "counts" / "scores.json").read_text())["mean_iou"] == 1.0
    assert sum("all 2 shards are merged" in rank.error for rank in ranks) >= 1
