"""``wsss submit`` on a real Slurm: jobs that are preempted, run out of time or are killed end as if they had not."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from wsss.config import Config, to_yaml
from wsss.models.checkpoint import read_checkpoint
from wsss.outputs.journal import JOURNAL, read_journal

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
EPOCHS = 12
ENDS = ("COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "CANCELLED")
WRAPPER = """\
#!/bin/bash
case " $* " in *" train-"* | *" make-pseudo "* | *" predict "*) set -- "$@" -c tiny.yaml ;; esac
exec {python} -m wsss "$@"
"""
"""The program ``wsss`` of a user, with settings that train in seconds."""


class Place:
    """A working folder of somebody who uses Slurm: ``photos``, ``new-photos`` and a program ``wsss``."""

    def __init__(self, folder: Path, slurm: Any, scenes: Path, config: Config) -> None:
        self.folder = folder
        self.slurm = slurm
        (folder / "tiny.yaml").write_text(to_yaml(config))
        (folder / "photos").symlink_to(scenes)
        shutil.copytree(scenes / "images", folder / "new-photos")
        (folder / "bin").mkdir()
        (folder / "bin" / "wsss").write_text(WRAPPER.format(python=shlex.quote(sys.executable)))
        (folder / "bin" / "wsss").chmod(0o755)

    def shell(self, text: str) -> list[str]:
        """Run lines of bash; returns the words that they print."""
        ran = self.slurm.run("bash", "-euc", f'PATH="$PWD/bin:$PATH"\n{text}', folder=self.folder)
        assert ran.returncode == 0, ran.stderr
        return str(ran.stdout).split()

    def train(self, run: str, *options: str) -> str:
        """Submit ``train-cls``; returns the number of its job."""
        (number,) = self.shell(f"wsss submit {shlex.join(options)} -- train-cls --data photos -o {run}")
        return number

    def starts(self, number: str) -> list[int]:
        """Wait until a job's program has been started; returns its processes."""
        self.slurm.wait_until(lambda: bool(self.slurm.processes(number)), lambda: str(self.slurm.job(number)))
        processes: list[int] = self.slurm.processes(number)
        return processes

    def freeze(self, number: str, run: str) -> None:
        """Suspend a training in the middle, until a signal of Slurm wakes it (SIGCONT comes with each)."""
        self.slurm.wait_until((self.folder / run / "metrics.jsonl").exists, lambda: self.log(run))
        for process in self.slurm.processes(number):
            os.kill(process, signal.SIGSTOP)

    def minutes(self, number: str) -> int:
        """Whole minutes since a job began; it began less than an hour ago."""
        return int(self.slurm.job(number)["RunTime"].split(":")[1])

    def set_limit(self, number: str, minutes: int) -> None:
        """Give a job another time limit."""
        self.slurm.run("scontrol", "update", f"JobId={number}", f"TimeLimit={minutes}")

    def log(self, name: str) -> str:
        """What a job has printed."""
        path = self.folder / f"{name}.log"
        return path.read_text() if path.is_file() else f"no {path}"

    def ends(self, number: str) -> dict[str, str]:
        """Wait until a job has ended."""
        job: dict[str, str] = self.slurm.wait_for(number, *ENDS)
        return job

    def is_done(self, number: str, *, restarts: int = 0) -> None:
        """Wait until a job has ended well."""
        job = self.ends(number)
        found = job["JobState"], job["ExitCode"], int(job["Restarts"])
        assert found == ("COMPLETED", "0:0", restarts), Path(job["StdOut"]).read_text()

    def weights(self, run: str) -> dict[str, Tensor]:
        network: dict[str, Tensor] = read_checkpoint(self.folder / run / "last.pt")["network"]
        return network


@pytest.fixture(scope="module")
def make_place(
    tmp_path_factory: pytest.TempPathFactory, slurm: Any, scenes: Path
) -> Callable[[Callable[..., Config]], Place]:
    """The place of the tests of one process, with a training ``plain`` that nothing disturbed."""
    places: list[Place] = []

    def make(tiny_config: Callable[..., Config]) -> Place:
        if not places:
            places.append(Place(tmp_path_factory.mktemp("slurm"), slurm, scenes, tiny_config(classify__epochs=EPOCHS)))
            places[0].is_done(places[0].train("plain"))
        return places[0]

    return make


@pytest.fixture
def place(make_place: Callable[..., Place], tiny_config: Callable[..., Config]) -> Place:
    return make_place(tiny_config)


def assert_alike(first: dict[str, Tensor], second: dict[str, Tensor], most: float) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert (value - second[name]).abs().max() <= most, name


def blocks(page: str) -> list[str]:
    """The blocks of shell of a page, or of a part of it."""
    return re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the journal, whose lines come in the order of the threads."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != JOURNAL)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_training_goes_on_where_slurm_ended_it(place: Place) -> None:
    timed = place.train("timed", "--time", "60", "--lead", "59", "--sbatch=--partition=high")
    preempted = place.train("preempted")
    place.freeze(timed, "timed")
    place.set_limit(timed, place.minutes(timed) + 2)  # Slurm looks every 30 seconds which time is nearly over
    place.freeze(preempted, "preempted")
    cpus = f"--ntasks={place.slurm.cpus - 1}"
    urgent = place.slurm.output("sbatch", "--parsable", "-p", "high", cpus, "-o", "/dev/null", "--wrap", "sleep 1")
    place.ends(urgent)
    place.slurm.wait_until(lambda: place.slurm.job(timed)["Restarts"] == "1", lambda: place.log("timed"), 300)
    place.set_limit(timed, 60)

    place.is_done(preempted, restarts=1)
    assert "stopped by SIGTERM" in place.log("preempted")
    assert_alike(place.weights("preempted"), place.weights("plain"), 0)
    place.is_done(timed, restarts=1)
    assert "stopped by SIGUSR1" in place.log("timed")
    assert_alike(place.weights("timed"), place.weights("plain"), 0)


def test_an_array_with_a_task_that_was_killed_and_one_that_was_requeued(place: Place) -> None:
    command = "-- make-pseudo plain --data photos -o"
    (single,) = place.shell(f"wsss submit {command} single")
    array, merge = place.shell(f"wsss submit --array 2 {command} labels")
    killed, _ = place.starts(f"{array}_0"), place.starts(f"{array}_1")  # a job that waits is not requeued
    place.slurm.run("scontrol", "requeue", f"{array}_1")
    for process in killed:
        os.kill(process, signal.SIGKILL)
    job = place.ends(f"{array}_0")
    assert (job["JobState"], job["ExitCode"]) == ("FAILED", "137:0")
    place.is_done(f"{array}_1", restarts=1)
    assert place.ends(merge)["JobState"] == "CANCELLED"

    array, merge = place.shell(f"wsss submit --array 2 {command} labels")  # the same again does the rest
    place.is_done(merge)
    assert "0 pseudo labels made" in place.log("labels.1")
    place.is_done(single)
    assert contents(place.folder / "labels") == contents(place.folder / "single")
    assert read_journal(place.folder / "labels") == read_journal(place.folder / "single")


def test_a_job_without_progress_is_not_requeued_for_ever(place: Place) -> None:
    number = place.train("stuck")
    for restarts in range(4):
        place.slurm.wait_until(
            lambda restarts=restarts: place.slurm.job(number)["Restarts"] == str(restarts), lambda: place.log("stuck")
        )
        place.starts(number)
        place.slurm.run("scancel", "--signal=USR1", number)
    job = place.ends(number)
    assert job["JobState"] == "FAILED"
    assert job["ExitCode"] in ("75:0", "138:0")  # 138: before the interpreter could catch it
    assert "3 requeues without progress" in place.log("stuck")


def test_the_scripts_of_the_page(place: Place) -> None:
    """Two processes train together, then the tasks of an array label; the next job waits for them."""
    found = blocks((ROOT / "docs" / "clusters.md").read_text())
    train, labels = (block for block in found if "#SBATCH" in block)
    (place.folder / "train.sbatch").write_text(train)
    (place.folder / "labels.sbatch").write_text(labels)
    (lines,) = (block for block in found if "sbatch --parsable" in block)
    number, _, merge = place.shell(lines)
    place.is_done(merge)
    assert_alike(place.weights("runs/cls"), place.weights("plain"), 1e-4)
    assert place.slurm.job(number)["NumTasks"] == "2"


def test_the_commands_of_the_readme(
    tmp_path: Path, slurm: Any, scenes: Path, tiny_config: Callable[..., Config]
) -> None:
    """Block after block, as somebody new copies them."""
    place = Place(tmp_path, slurm, scenes, tiny_config(classify__epochs=1, segment__epochs=1))
    text = (ROOT / "README.md").read_text().split("## On a cluster")[1].split("\n## ")[0]
    for block, count in zip(blocks(text), (1, 2, 5), strict=True):
        numbers = place.shell(re.sub(r"^(train-.*|predict .*)$", r"\1 -c tiny.yaml", block, flags=re.MULTILINE))
        assert len(numbers) == count
        for number in numbers:
            place.is_done(number)
    assert len([*(place.folder / "masks" / "labels").iterdir()]) == len([*(place.folder / "new-photos").iterdir()])
    assert (place.folder / "report.html").is_file()
