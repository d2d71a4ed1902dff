"""Standard error that is not a terminal or cannot be written, and what --quiet and --log-json make of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsss.cli import main
from wsss.cli.log import Style, style
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


@pytest.fixture(autouse=True)
def usual_style() -> Iterator[None]:
    """The style of the process as it was before a test."""
    before = style.quiet, style.as_json
    yield
    style.quiet, style.as_json = before


def events(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert all(one.pop("time").endswith("+00:00") for one in found)
    return found


def test_options_end_at_two_dashes() -> None:
    found = Style()
    found.choose(["config", "check", "--log-json", "--", "--quiet"])
    assert found == Style(quiet=False, as_json=True)
    found.choose(["data", "check", "x"])
    assert found == Style()


def test_quiet_leaves_errors_alone(wsss: Callable[..., Any], scenes: Path) -> None:
    done = wsss("data", "check", scenes, "--quiet", "--json")
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["images"] == 32
    assert wsss("data", "check", scenes).err  # the style ends with its program
    assert wsss("data", "check", scenes / "nowhere", "--quiet").error()[0].endswith("no such data folder")


def test_each_line_of_a_json_log_is_an_event(wsss: Callable[..., Any], scenes: Path) -> None:
    done = wsss("data", "check", scenes, "--log-json")
    found = events(done.err)
    assert {one["event"] for one in found} == {"progress", "table", "remark"}
    table = next(one for one in found if one["event"] == "table")
    assert table["columns"] == ["class", "train", "val"]
    assert [row[0] for row in table["rows"]] == ["bee", "ladybird"]
    assert events(wsss("data", "check", scenes, "--log-json", "--quiet").err) == []


@pytest.mark.parametrize("words", [["predict", "--bla"], ["config", "check", "nowhere.yaml"]])
def test_errors_are_events(wsss: Callable[..., Any], words: list[str]) -> None:
    plain, done = wsss(*words), wsss(*words, "--log-json")
    problem, fix = plain.error()
    assert events(done.err) == [{"event": "error", "kind": "usage", "problem": problem, "fix": fix, "status": 2}]
    assert done.status == plain.status == 2


def test_a_bug_is_an_event(wsss: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**settings: Any) -> None:
        raise ZeroDivisionError("seven")

    monkeypatch.setattr(main, "app", broken)
    done = wsss("doctor", "--log-json")
    (found,) = events(done.err)
    assert (done.status, found["event"]) == (1, "bug")
    assert found["traceback"].endswith("ZeroDivisionError: seven\n")


def test_progress_begins_and_ends(capsys: pytest.CaptureFixture[str]) -> None:
    style.as_json = True
    with Terminal() as terminal:
        terminal.begin("labelling", 1000, done=400)
        for number in range(600):
            terminal.advance(note=f"image {number}")
        terminal.say("done\x1b")
    first, *_, last, remark = events(capsys.readouterr().err)
    assert first == {"event": "progress", "task": "labelling", "done": 400, "total": 1000, "note": ""}
    assert last == {"event": "progress", "task": "labelling", "done": 1000, "total": 1000, "note": "image 599"}
    assert remark == {"event": "remark", "text": "done\\x1b"}
