"""``wsss status``, and ``--resume-or-start``: the same command again continues a training."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.config import Config, to_yaml
from wsss.errors import DataError
from wsss.outputs.folder import Source, held_folder
from wsss.outputs.merge import merge_labels
from wsss.outputs.shards import Division
from wsss.reporting import Silent
from wsss.shard import Shard
from wsss.training import loop
from wsss.training.classify import ClassifyStep
from wsss.training.segment import SegmentStep
from wsss.training.status import Status, status_of

Program = Callable[..., Any]


def stop_in_step(monkeypatch: pytest.MonkeyPatch, kind: Any, step: int) -> None:
    """Send SIGTERM inside a step, once."""
    plain, done = kind.forward, []

    def forward(self: Any, batch: Any, at: int) -> Any:
        if at == step and not done:
            done.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, batch, at)

    monkeypatch.setattr(kind, "forward", forward)


def words(status: Status) -> str:
    return ", ".join(map(str, status.parts))


def test_the_same_command_again_continues(
    wsss: Program, tmp_path: Path, tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, scenes: Path
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    (tmp_path / "config.yaml").write_text(to_yaml(tiny_config()))
    run = tmp_path / "run"
    assert wsss("status", run).error()[0] == f"{run}: no such run or folder"

    command = ("train-cls", "-c", tmp_path / "config.yaml", "-o", run, "--resume-or-start")
    stop_in_step(monkeypatch, ClassifyStep, 2)
    assert wsss(*command).status == 75
    found = wsss("status", run)
    assert (found.status, found.out) == (75, "steps 3/6\n")
    assert found.err.splitlines()[-1] == "missing: 3 of 6 steps"
    (part,) = json.loads(wsss("status", run, "--json").out)["parts"]
    assert part["seconds_left"] == pytest.approx(3 * 8 / part["images_per_second"])

    problem, fix = wsss(*command, "--seed", 1, "--workers", 1).error()
    assert problem == f"{run} was begun with other settings: run.seed was 0, now it is 1"
    assert fix.startswith(f"--resume {run} ")
    assert wsss(*command, "--resume", run).status == 2

    shutil.copytree(scenes, tmp_path / "moved")
    assert wsss(*command, "--data", tmp_path / "moved").status == 0
    assert wsss("status", run)[:2] == (0, "steps 6/6\n")

    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({key: value for key, value in facts.items() if key != "asked"}))
    assert wsss(*command).status == 3


def test_a_run_in_rounds(
    wsss: Program, tmp_path: Path, tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(tiny_config(segment__rounds=2, segment__epochs=1)))
    run = tmp_path / "run"
    command = ("train-seg", "-c", tmp_path / "config.yaml", "-o", run, "--resume-or-start")
    stop_in_step(monkeypatch, SegmentStep, 1)
    assert wsss(*command).status == 75
    assert words(status_of(run)) == "teacher's steps 2/3, labels 0/24, steps 0/3"
    assert status_of(run).missing == ("teacher's 1 of 3 steps", "labels", "3 of 3 steps")
    assert wsss(*command, "--labels", tmp_path).status == 2
    assert wsss(*command).status == 0
    assert (words(status_of(run)), status_of(run).is_done) == ("steps 3/3", True)
    (run / "last.pt").unlink()
    assert status_of(run).missing == ("first checkpoint",)


def test_folders_of_label_maps(tmp_path: Path, tiny_config: Callable[..., Config]) -> None:
    sources = [Source(name=f"{i}", origin=f"/{i}.jpg", digest=f"{i}", tags=(0,)) for i in range(5)]

    def write(out: Path, images: slice, shard: Shard | None, *, whole: bool = True) -> None:
        division, mine = None if shard is None else Division(shard, 5, "digest"), sources[images]
        choices = {"images": 5}
        with held_folder(
            out, {}, tiny_config(), Silent(), overwrite=False, choices=choices, division=division
        ) as folder:
            folder.begin(mine, Silent(), overwrite=False)
            for source in mine if whole else mine[:1]:
                folder.write(source, np.zeros((2, 2), np.uint8))
            if whole:
                folder.complete(mine)

    alone, out = tmp_path / "alone", tmp_path / "shards"
    write(alone, slice(5), None, whole=False)
    assert (words(status_of(alone)), status_of(alone).missing) == ("labels 1/5", ("labels",))
    write(alone, slice(5), None)
    assert (words(status_of(alone)), status_of(alone).is_done) == ("labels 5/5", True)

    write(out, slice(0, 5, 2), Shard(0, 2))
    assert (words(status_of(out)), status_of(out).missing) == ("shard 0/2 3/3, shard 1/2 0/?", ("shard 1/2",))
    write(out, slice(1, 5, 2), Shard(1, 2), whole=False)
    assert words(status_of(out, Shard(1, 2))) == "shard 1/2 1/2"
    assert status_of(out, Shard(0, 2)).is_done
    write(out, slice(1, 5, 2), Shard(1, 2))
    assert status_of(out).missing == ("merge",)
    merge_labels(out, Silent())
    assert (words(status_of(out)), status_of(out).is_done) == ("labels 5/5", True)
    with pytest.raises(DataError, match="neither a run nor a folder"):
        status_of(tmp_path)
