"""The exit statuses, each from a real process, and the files and processes that are left after a signal."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from wsss.cli.main import STATUSES
from wsss.config import to_yaml
from wsss.data.masks import read_mask
from wsss.models.checkpoint import read_checkpoint, save_checkpoint

IMAGES = 160


@pytest.fixture
def config_file(tmp_path: Path, tiny_config: Any) -> Path:
    """A config for a training that is long enough to be stopped."""
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(tiny_config(classify__epochs=500, run__workers=2)))
    return path


@pytest.fixture
def run(tmp_path: Path, tiny_config: Any, small_network: Callable[..., Any]) -> Path:
    folder = tmp_path / "trained"
    folder.mkdir()
    save_checkpoint(folder / "last.pt", small_network(), tiny_config())
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(IMAGES):
        Image.effect_noise((48, 40), k % 99).convert("RGB").save(folder / f"{k:03d}.png")
    return folder


def test_the_help_tells_every_status() -> None:
    listed = [int(number) for number in re.findall(r"(?:^|[;:] )\s*(\d+) ", " ".join(STATUSES.split()))]
    assert listed == [0, 1, 2, 3, 4, 75, 130]
    done = subprocess.run(
        [sys.executable, "-m", "wsss", "--help"], capture_output=True, text=True, timeout=120, check=True
    )
    assert "75 stopped by a signal" in " ".join(done.stdout.split())


def test_statuses_without_signals(warm: Any, tmp_path: Path, run: Path, images: Path) -> None:
    (tmp_path / "one").mkdir()
    (images / "007.png").rename(tmp_path / "one" / "007.png")
    out = ["-o", tmp_path / "out", "--device", "cpu"]
    for status, arguments, said in (
        (0, ["predict", run, tmp_path / "one", *out], ""),
        (2, ["predict", run, tmp_path / "one", *out, "--amp", "int3"], "run.amp"),
        (2, ["predict", run, "--nonsense"], "No such option"),
        (3, ["predict", run, tmp_path / "nowhere", *out], "no such image or folder"),
        (3, ["make-pseudo", tmp_path / "nowhere", "--data", tmp_path, *out], "no such run"),
        (4, ["predict", run, tmp_path / "one", "-o", tmp_path / "out", "--device", "cuda:99"], "CUDA device"),
    ):
        program = warm.start(*arguments)
        assert program.wait() == status, program.error
        if status:
            assert said in program.error_and_fix[0]
            assert "Traceback" not in program.error


BUG = """
import wsss.data.records
from wsss.cli.main import run
def broken(content, where, levels):
    {statement}
wsss.data.records.decode_image = broken
run()
"""


@pytest.mark.parametrize(
    ("statement", "status", "said"),
    [
        ("raise ZeroDivisionError('a bug')", 1, r"Traceback(.|\n)*ZeroDivisionError"),
        (
            "import os; os.kill(os.getpid(), 9)",
            4,
            r"error: \d+: the loader process that read it was killed by SIGKILL",
        ),
    ],
)
def test_a_bug_and_a_dead_worker(
    tmp_path: Path, run: Path, images: Path, statement: str, status: int, said: str
) -> None:
    began = time.monotonic()
    command: list[str | Path] = [sys.executable, "-c", BUG.format(statement=statement), "predict", run, images]
    done = subprocess.run(
        [*command, "-o", tmp_path / "out", "--device", "cpu", "--workers", "2", "--set", "run.batch_pixels=1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert re.search(said, done.stderr)
    assert done.stdout == ""
    assert time.monotonic() - began < 120


def session(leader: int) -> list[str]:
    """Processes of a session, including zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue  # the process has ended
        if rest.split()[3] == str(leader):
            found.append(f"{name}) {rest.split()[0]}")
    return found


def assert_no_trace(program: Any, out: Path) -> None:
    """Check that no process of a program and no incomplete file is left."""
    deadline = time.monotonic() + 20  # loader processes check every five seconds that their parent exists
    while session(program.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert session(program.pid) == []
    assert [path.name for path in out.rglob("*") if path.name.endswith(".tmp")] == []
    for path in out.rglob("*.png"):
        read_mask(path)
    for path in out.rglob("*.pt"):
        read_checkpoint(path)


def wait_for(some: Callable[[], bool], program: Any) -> None:
    deadline = time.monotonic() + 120
    while not some():
        assert time.monotonic() < deadline, program.error
        time.sleep(0.005)


@pytest.mark.parametrize("to_all", [False, True], ids=["kill -INT", "Ctrl-C"])
def test_ctrl_c_in_the_middle_of_predict(warm: Any, tmp_path: Path, run: Path, images: Path, to_all: bool) -> None:
    """Sent to the program alone, or also to its loader processes as by a terminal; the same command continues."""
    out = tmp_path / "out"
    arguments = ["predict", run, images, "-o", out, "--device", "cpu", "--workers", 2, "--no-overlays"]
    program = warm.start(*arguments)
    wait_for(lambda: any(out.glob("labels/*.png")), program)
    program.send(signal.SIGINT, to_all=to_all)
    assert program.wait() == 75, program.error
    assert "Traceback" not in program.error
    assert program.error_and_fix[1] == "run the same command again"
    assert_no_trace(program, out)
    assert 0 < len(list(out.glob("labels/*.png"))) < IMAGES
    warm.run(*arguments)
    assert len(list(out.glob("labels/*.png"))) == IMAGES


def test_ctrl_c_in_a_command_that_cannot_be_resumed(warm: Any, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    program = warm.start("demo", "-o", out, "--train", 2000, "--device", "cpu")
    wait_for(lambda: any(out.rglob("*.jpg")), program)
    program.send(signal.SIGINT, to_all=True)
    assert program.wait() == 130, program.error
    assert "Traceback" not in program.error
    assert program.error_and_fix == ["stopped by Ctrl-C", "run the same command again"]
    assert_no_trace(program, out)


@pytest.mark.parametrize("to_all", [False, True], ids=["kill", "scancel"])
def test_sigterm_in_the_middle_of_a_training(
    warm: Any, tmp_path: Path, scenes: Path, config_file: Path, to_all: bool
) -> None:
    """Sent to the program alone, or also to its loader processes as by a batch system."""
    out = tmp_path / "run"
    program = warm.start("train-cls", "-c", config_file, "-o", out)
    program.wait_for(out / "metrics.jsonl")
    program.send(signal.SIGTERM, to_all=to_all)
    assert program.wait() == 75, program.error
    assert "Traceback" not in program.error
    assert program.error_and_fix[1].endswith(f"--resume {out}") or "--resume" in program.error_and_fix[1]
    assert_no_trace(program, out)
    assert read_checkpoint(out / "last.pt")["training"]["step"] > 0
