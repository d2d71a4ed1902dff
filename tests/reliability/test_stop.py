"""A run that was killed or asked to stop at any moment resumes exactly: real processes, real signals."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wsss.config import Config, to_yaml
from wsss.errors import DataError, UsageError
from wsss.files import TEMPORARY
from wsss.models.checkpoint import read_checkpoint
from wsss.outputs.journal import read_journal
from wsss.outputs.run import check_free
from wsss.reporting import Silent
from wsss.training.start import resume_classifier, train_classifier

Plan = Callable[..., Path]
CHANCE = random.Random(5)
KILLS = 10
"""Of each command."""


@pytest.fixture
def plan(tmp_path: Path, tiny_config: Any) -> Plan:
    """A function that writes a config for a run of a few seconds; keywords change it."""

    def write(name: str = "config.yaml", **changes: Any) -> Path:
        common = {"validate_every": 2, "checkpoint_minutes": 1e-9, "epochs": 6, "ema": 0.8}
        sections = {f"{section}__{key}": value for section in ("classify", "segment") for key, value in common.items()}
        config: Config = tiny_config(**sections | {"run__workers": 1, "model__drop_path": 0.2} | changes)
        path = tmp_path / name
        path.write_text(to_yaml(config))
        return path

    return write


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Values of a nested checkpoint by their path."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, item in items for key, leaf in leaves(item, f"{path}/{name}").items()}
    return {path: value}


def assert_same_runs(first: Path, second: Path) -> None:
    """Check that the last checkpoints are equal bit for bit, and the metrics apart from speeds."""
    ours, theirs = leaves(read_checkpoint(first / "last.pt")), leaves(read_checkpoint(second / "last.pt"))
    assert ours.keys() == theirs.keys()
    assert any("/optimizer/state/" in key for key in ours)
    for key, value in ours.items():
        same = torch.equal(value, theirs[key]) if isinstance(value, Tensor) else value == theirs[key]
        assert same, key
    assert metrics(first) == metrics(second)


def metrics(run: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


def lines(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path.is_file() else 0


def contents(folder: Path) -> dict[str, bytes]:
    """Contents of all files that have their final name."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not TEMPORARY.fullmatch(path.name)]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def kill_somewhere(
    warm: Any, again: Callable[[], list[object]], finished: Callable[[], None], *, seconds: float, writes: int
) -> None:
    """Run, kill and run again until ``KILLS`` runs were killed before their end; then run to the end.

    Kills alternate between a random time, to the process alone or with its loader processes, and a random disk
    operation of the process.

    Args:
        warm: starts the program.
        again: returns the command, which may depend on how far the last run came.
        finished: checks and removes the outputs of a run that ended before it was killed.
        seconds: latest time of a kill.
        writes: largest number of the disk operation of a kill.
    """
    kills = 0
    while kills < KILLS:
        at_write = kills % 2 == 0
        forked = warm.start(*again(), kill_at=CHANCE.randint(1, writes) if at_write else None)
        if not at_write:
            time.sleep(CHANCE.uniform(0, seconds))
            forked.send(signal.SIGKILL, to_all=CHANCE.random() < 0.5)
        status = forked.wait()
        assert status in (0, -signal.SIGKILL), forked.error
        kills += status != 0
        if status == 0:
            finished()
    warm.run(*again())
    finished()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train-cls", "train-seg"])
def test_killed_anywhere(tmp_path: Path, plan: Plan, warm: Any, command: str) -> None:
    config, whole, cut = plan(), tmp_path / "whole", tmp_path / "cut"
    began = time.monotonic()
    warm.run(command, "-c", config, "-o", whole)
    seconds = time.monotonic() - began

    def again() -> list[object]:
        if (cut / "last.pt").is_file():
            read_checkpoint(cut / "last.pt")  # if it exists, it is complete
            return [command, "--resume", cut]
        return [command, "-c", config, "-o", cut]

    def finished() -> None:
        assert_same_runs(whole, cut)
        assert contents(cut).keys() == contents(whole).keys()
        assert not list(cut.rglob(".*"))
        shutil.rmtree(cut)

    kill_somewhere(warm, again, finished, seconds=0.7 * seconds, writes=200)


@pytest.mark.slow
def test_pseudo_labels_killed_anywhere(tmp_path: Path, plan: Plan, warm: Any) -> None:
    """A file with its final name is always complete, and in the end the folder is the same, byte for byte."""
    config, run = plan(classify__epochs=1, run__batch_pixels=3 * 48**2), tmp_path / "run"
    warm.run("train-cls", "-c", config, "-o", run)
    command: list[object] = ["make-pseudo", run, "-c", config, "--save-scores", "--overlays", 5, "-o"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    began = time.monotonic()
    warm.run(*command, whole)
    seconds = time.monotonic() - began
    expected = contents(whole)
    assert len(expected) == 24 + 24 + 5 + 3
    journal = read_journal(whole)
    files = {path for entry in journal.values() for path in entry.files}
    assert expected.keys() == files | {"config.yaml", "journal.jsonl", "manifest.json"}

    def again() -> list[object]:
        for name, content in contents(cut).items():
            if name == "manifest.json":
                json.loads(content)
            elif name not in (".lock", "journal.jsonl"):
                assert content == expected[name], name
        return [*command, cut]

    def finished() -> None:
        found = contents(cut)
        assert found.keys() == expected.keys()
        assert all(found[name] == expected[name] for name in expected if name != "journal.jsonl")
        assert read_journal(cut) == journal  # its lines come in the order of the threads
        assert not list(cut.rglob(".*"))
        shutil.rmtree(cut)

    kill_somewhere(warm, again, finished, seconds=seconds, writes=150)


@pytest.mark.parametrize("command", ["train-cls", "train-seg"])
def test_every_signal_saves_and_leaves_with_75(tmp_path: Path, plan: Plan, warm: Any, command: str) -> None:
    """Also if the signal reaches the loader processes, as from a terminal or a batch system."""
    many = {"epochs": 500, "validate_every": 500, "checkpoint_minutes": 5.0}
    section = "classify" if command == "train-cls" else "segment"
    config = plan(**{f"{section}__{key}": value for key, value in many.items()})
    run = tmp_path / "run"
    arguments: list[object] = [command, "-c", config, "-o", run]
    steps = [0]
    for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
        before = lines(run)
        forked = warm.start(*arguments)
        forked.wait_until(lambda before=before: lines(run) > before)
        forked.send(number, to_all=True)
        assert forked.wait() == 75, forked.error
        steps.append(read_checkpoint(run / "last.pt")["training"]["step"])
        error, fix = forked.error_and_fix
        assert error == f"stopped by {number.name} after step {steps[-1]} of 1500; the state is saved"
        assert f"--resume {run}" in fix
        assert "Traceback" not in forked.error
        arguments = [command, "--resume", run]
    assert steps == sorted(set(steps))


def test_ctrl_c_twice_stops_at_once(tmp_path: Path, plan: Plan, warm: Any) -> None:
    """The second Ctrl-C comes inside a long step, which is not finished."""
    config, run = plan(augment__size=384, classify__batch_size=24), tmp_path / "run"
    forked = warm.start("train-cls", "-c", config, "-o", run)
    forked.wait_for(run / "last.pt")
    for _ in range(2):
        time.sleep(0.2)
        forked.send(signal.SIGINT)
    assert forked.wait() == 130, forked.error
    assert forked.error_and_fix == ["stopped by Ctrl-C", "run the same command again"]
    assert read_checkpoint(run / "last.pt")["training"]["step"] == 0
    assert not list(run.glob(".*"))


def test_pseudo_labels_asked_to_stop(tmp_path: Path, plan: Plan, warm: Any) -> None:
    config, run, out = plan(classify__epochs=1, run__batch_pixels=48**2), tmp_path / "run", tmp_path / "out"
    warm.run("train-cls", "-c", config, "-o", run)
    made = [0]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        forked = warm.start("make-pseudo", run, "-c", config, "--set", "labels.pamr_iterations=40", "-o", out)
        forked.wait_until(lambda before=made[-1]: len(list(out.glob("labels/*.png"))) > before)
        forked.send(number, to_all=True)
        assert forked.wait() == 75, forked.error
        error, fix = forked.error_and_fix
        if error != "stopped: a loader process got SIGTERM":  # whichever process reports first
            assert error.startswith(f"stopped by {number.name} after ")
            assert error.endswith("of 24 images")
        assert fix.startswith("run the same command again")
        made.append(len(list(out.glob("labels/*.png"))))
        assert json.loads((out / "manifest.json").read_text())["counts"] == {}
        assert not list(out.rglob(".*"))
    assert made == sorted(set(made))
    assert made[-1] < 24


def test_an_overwrite_killed_early_leaves_no_old_label(tmp_path: Path, plan: Plan, warm: Any) -> None:
    """Killed at one of its first disk operations, it leaves no old label map in a folder with the new settings."""
    config, run, out = plan(classify__epochs=1), tmp_path / "run", tmp_path / "out"
    warm.run("train-cls", "-c", config, "-o", run)
    warm.run("make-pseudo", run, "-c", config, "-o", out)
    old = contents(out)
    other = ["make-pseudo", run, "-c", config, "--method", "cam", "-o", out]
    for number in (1, 3, 5):  # from 4 on the folder is that of the new settings
        assert warm.start(*other, "--overwrite", kill_at=number).wait() == -signal.SIGKILL
        assert not set(contents(out)) & {name for name in old if name.startswith("labels/")}
    warm.run(*other)
    assert json.loads((out / "manifest.json").read_text())["counts"]["images"] == 24


def test_a_run_is_resumable_before_its_first_step(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(classify__epochs=1)
    train_classifier(config, tmp_path / "whole", Silent())

    def crash(*args: Any) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr("wsss.training.loop.Loop._step", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train_classifier(config, tmp_path / "cut", Silent())
    assert read_checkpoint(tmp_path / "cut" / "last.pt")["training"]["step"] == 0
    resume_classifier(tmp_path / "cut", Silent())
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("written", [["run.json"], ["run.json", "config.yaml"]])
def test_a_run_killed_before_its_first_checkpoint_is_begun_again(
    tmp_path: Path, tiny_config: Any, written: list[str]
) -> None:
    config, run = tiny_config(classify__epochs=1), tmp_path / "run"
    train_classifier(config, run, Silent())
    for path in run.iterdir():
        if path.name not in written:
            path.unlink()
    (run / ".last.pt.4711000001.tmp").write_bytes(b"PK")
    with pytest.raises(DataError, match="stopped before the first one was written") as caught:
        resume_classifier(run, Silent())
    assert caught.value.fix.split()[0] == "wsss"  # the command of its run.json
    train_classifier(config, run, Silent())
    assert {path.name for path in run.iterdir()} == {"run.json", "config.yaml", "metrics.jsonl", "last.pt", "best.pt"}


def test_a_config_of_ones_own_is_not_taken_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run: {seed: 1}\n")
    with pytest.raises(UsageError, match="is in use"):
        check_free(tmp_path)


def test_checkpoints_between_two_lines_keep_the_means_of_the_metrics(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint between two lines of metrics holds what the next line is the mean of."""
    config = tiny_config(classify__epochs=4, classify__validate_every=4, classify__checkpoint_minutes=1e-9)
    train_classifier(config, tmp_path / "whole", Silent())
    step = 7
    from wsss.training.loop import Loop

    plain, saved = Loop._step, []

    def crash(self: Loop, batch: Any) -> None:
        saved.append(read_checkpoint(self.run / "last.pt")["training"]["step"])
        if self.state.step == step:
            raise RuntimeError("power cut")
        plain(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            train_classifier(config, tmp_path / "cut", Silent())
    assert saved == [*range(8)]
    resume_classifier(tmp_path / "cut", Silent())
    assert [row["step"] for row in metrics(tmp_path / "cut") if "split" not in row] == [10, 12]
    assert_same_runs(tmp_path / "whole", tmp_path / "cut")
