"""Standard error that is not a terminal or cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from wsss.cli.terminal import Terminal, console

LONG = "a-folder-of-a-project-on-a-cluster/" * 8


def test_a_remark_is_one_line_outside_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal() as terminal:
        terminal.say(f"saved to {LONG} [bold]")
    assert capsys.readouterr().err == f"saved to {LONG} [bold]\n"


SCRIPT = """
import sys
from wsss.cli.log import log
from wsss.cli.terminal import Terminal, console
with Terminal() as terminal:
    for number in range(3):
        terminal.say(f"line {number}")
    console.print("a table")
log.write("error: none")
print("done")
log.flush()
"""
FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_disk_stops_no_work() -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=full, timeout=60, check=False
        )
    assert (done.returncode, done.stdout) == (0, b"done\n")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_an_error_keeps_its_status_on_a_full_disk() -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wsss", "config", "check", "nowhere.yaml"], stderr=full, timeout=60, check=False
        )
    assert done.returncode == 2


def test_what_is_written_before_and_after_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    console.print("one")
    print("two", file=sys.stderr)
    console.print("three")
    assert capsys.readouterr().err == "one\ntwo\nthree\n"


def test_a_closed_pipe_stops_no_work() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys\nsys.stdin.read()\n{SCRIPT}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    process.stderr.close()
    process.stderr = None
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b"done\n")


def test_control_characters_of_names_do_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal() as terminal:
        terminal.say("skipped new\nline and \x1b[31mred: é")
    assert capsys.readouterr().err == "skipped new\\nline and \\x1b[31mred: é\n"
