"""``wsss submit``: the scripts it writes and the calls of sbatch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Program = Callable[..., Any]
LINES = """\
train-cls --data photos -o runs/cls
train-seg --data photos --init runs/cls -o runs/seg
predict runs/seg new-photos -o masks
report runs/seg masks -o report.html
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, with a sbatch that writes its arguments to ``calls`` and gives out job numbers."""
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(
        '#!/bin/bash\necho "$@" >>calls\n[ -e no ] && echo "sbatch: error: no" >&2 && exit 1\nwc -l <calls\n'
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def calls() -> list[str]:
    return Path("calls").read_text().splitlines()


def test_one_command(wsss: Program) -> None:
    words = ("submit", "--time", "2:00:00", "--tasks", 2, "--sbatch=--exclusive")
    training = ("--", "train-cls", "--data", "photos", "-o", "runs/cls")
    dry = wsss(*words, "--dry-run", *training)
    assert f"{sys.executable} -m wsss train-cls --data photos -o runs/cls --resume-or-start\n" in dry.out
    assert not Path("runs").exists()
    found = wsss(*words, *training)
    assert (found.status, found.out) == (0, "1\n")
    assert "job 1: runs/cls.sbatch, its output is in runs/cls.log" in found.err
    assert Path("runs/cls.sbatch").read_text() == dry.out
    assert calls() == ["--parsable runs/cls.sbatch"]
    Path("no").touch()
    problem, fix = wsss(*words, *training).error()
    assert problem == "Slurm refuses runs/cls.sbatch: sbatch: error: no"
    assert fix == "sbatch --parsable runs/cls.sbatch"


def test_a_pipeline(wsss: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("steps").write_text(LINES)
    found = wsss("submit", "--gpus", 2, "--array", 3, "--pipeline", "steps", "--json")
    assert [Path(one["script"]).name for one in json.loads(found.out)] == [
        *("cls.sbatch", "seg.sbatch", "masks.sbatch", "masks.merge.sbatch", "report.html.sbatch"),
    ]
    after = [line.partition("afterok:")[2][:1] for line in calls()]
    assert after == ["", "1", "2", "3", "4"]
    assert "--kill-on-invalid-dep=yes" in calls()[1]


def test_mistakes_are_found_before_anything_is_submitted(wsss: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("steps").write_text(LINES.replace("--init", "--inti"))
    assert "No such option: --inti" in wsss("submit", "--pipeline", "steps").error()[0]
    assert "No such command 'tarin'" in wsss("submit", "--", "tarin").error()[0]
    assert wsss("submit").error()[0] == "expected a command or --pipeline FILE"
    assert wsss("submit", "--pipeline", "gone").status == 2
    assert (
        "divides make-pseudo and predict alone" in wsss("submit", "--array", 2, "--", "train-cls", "-o", "r").error()[0]
    )
    assert not Path("calls").exists()
    monkeypatch.setenv("PATH", "")
    assert wsss("submit", "--", "train-cls", "-o", "r").status == 4
