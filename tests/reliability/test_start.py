"""Signals from the first line of the program on, and standard streams that are closed, full or have other letters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from wsss.cli.start import lost_library, with_home
from wsss.config import resolve, to_yaml
from wsss.stopping import SIGNALS, stop_requests

LATE = """
import os, signal, sys
import importlib.abc

class Send(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})
        return None

sys.meta_path.insert(0, Send())
from wsss.cli.start import run
sys.argv = ["wsss", *{arguments!r}]
run()
"""
"""A program that gets a signal when it imports a module."""

SCRIPT = str(Path(sys.executable).with_name("wsss"))


def default_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def program(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, preexec_fn=default_signals, **options
    )


@pytest.mark.parametrize("number", SIGNALS, ids=[number.name for number in SIGNALS])
@pytest.mark.parametrize("module", ["typer", "torch"])
def test_a_signal_during_the_imports(tmp_path: Path, number: signal.Signals, module: str) -> None:
    arguments = ["train-cls", "--data", str(tmp_path), "-o", str(tmp_path / "run")]
    done = program(sys.executable, "-c", LATE.format(module=module, number=int(number), arguments=arguments))
    ctrl_c = number == signal.SIGINT
    assert done.returncode == (130 if ctrl_c else 75), done.stderr
    why = "Ctrl-C" if ctrl_c else number.name
    assert done.stderr == f"error: stopped by {why}\nfix:   run the same command again\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [[sys.executable, "-m", "wsss"], [SCRIPT]], ids=["-m", "script"])
def test_a_signal_at_any_time_of_the_start(tmp_path: Path, command: list[str]) -> None:
    """Each ends with one of the documented statuses; before the first line of the program nothing can be done."""
    if command == [SCRIPT] and not Path(SCRIPT).is_file():
        pytest.skip("the console script is not installed")
    for seconds in (0.1, 0.3, 0.6, 1.2):
        process = subprocess.Popen(
            [*command, "data", "check", str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=default_signals,
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGUSR2)
        _, error = process.communicate(timeout=120)
        assert "Traceback" not in error
        assert "Exception ignored" not in error
        if process.returncode != -signal.SIGUSR2:  # the interpreter had not begun
            assert process.returncode in (3, 75), error
            assert "\nerror: " in f"\n{error}"


WORKING = """
import os, signal, sys
import wsss.cli.main
from wsss.cli.start import run
def work():
    try:
        os.kill(os.getpid(), {number})
    except Exception:
        pass
    print("worked")
wsss.cli.main.run = work
run()
"""


@pytest.mark.parametrize("number", SIGNALS, ids=[number.name for number in SIGNALS])
def test_a_signal_where_nothing_is_saved(number: signal.Signals) -> None:
    done = program(sys.executable, "-c", WORKING.format(number=int(number)))
    assert (done.returncode, done.stdout) == (130 if number == signal.SIGINT else 75, "")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_was_ignored_stays_ignored(number: signal.Signals) -> None:
    """As by nohup, and by a shell that starts a program in its background."""
    done = subprocess.run(
        [sys.executable, "-c", WORKING.format(number=int(number))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
    )
    assert (done.returncode, done.stdout) == (0, "worked\n"), done.stderr
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), number)
            assert stop.asked == ""
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU])
def test_every_signal_stops_a_training(warm: Any, tmp_path: Path, tiny_config: Any, number: signal.Signals) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(to_yaml(tiny_config(classify__epochs=500, run__workers=1)))
    forked = warm.start("train-cls", "-c", config, "-o", run)
    forked.wait_until(lambda: (run / "metrics.jsonl").is_file())
    forked.send(number, to_all=True)
    assert forked.wait() == 75, forked.error
    assert forked.error_and_fix[0].startswith(f"stopped by {number.name} after step ")
    assert "Traceback" not in forked.error
    assert (run / "last.pt").is_file()


def streams(*arguments: str, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program through a shell with redirections."""
    command = [sys.executable, "-m", "wsss", *arguments]
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirect}', "bash", *command],
        capture_output=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("arguments", [("config", "list"), ("--help",)])
def test_standard_output_that_is_closed_or_full(arguments: tuple[str, ...]) -> None:
    for redirect, why in ((">/dev/full", "No space left on device"), (">&-", "it is closed")):
        done = streams(*arguments, redirect=redirect)
        error = f"error: standard output cannot be written: {why}; all else is done\nfix:   send it elsewhere\n"
        assert (done.returncode, done.stderr.decode()) == (4, error)


@pytest.mark.parametrize("arguments", [("config", "show"), ("--help",), ("backbones",)])
def test_a_reader_that_has_ended_is_no_error(arguments: tuple[str, ...]) -> None:
    done = streams(*arguments, redirect='| head -c 1; exit "${PIPESTATUS[0]}"')
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 1, b"")


@pytest.mark.parametrize("redirect", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_standard_error_that_cannot_be_written(redirect: str) -> None:
    done = streams("config", "list", redirect=redirect)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"demo\n" in done.stdout
    assert streams("config", "check", "nowhere.yaml", redirect=redirect).returncode == 2


@pytest.mark.parametrize("columns", ["0", "many"])
def test_odd_numbers_of_columns_hide_nothing(tmp_path: Path, columns: str) -> None:
    done = streams("data", "check", str(tmp_path), COLUMNS=columns)
    assert done.returncode == 3
    assert done.stderr.startswith(b"error: ")
    (tmp_path / "tags.csv").write_text("image,labels\na.png,cat\n")
    Image.new("RGB", (24, 20)).save(tmp_path / "a.png")
    assert b"cat" in streams("data", "info", str(tmp_path), COLUMNS=columns).stderr


def test_a_working_folder_that_was_removed_is_named() -> None:
    script = f'd=$(mktemp -d); cd "$d"; rmdir "$d"; {sys.executable} -m wsss config show'
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 4
    assert done.stderr.splitlines()[-2:] == [
        "error: the working folder is no longer there",
        "fix:   cd to a folder that exists, then run the same command again",
    ]


@pytest.mark.parametrize(
    ("text", "problem", "fix"),
    [
        (
            "libGL.so.1: cannot open shared object file: No such file or directory",
            "library is missing: libGL",
            "libgl1",
        ),
        ("libx.so.2: cannot open shared object file: No such file", "library is missing: libx", "package of libx.so.2"),
        ("libtorch_cuda.so: failed to map segment from shared object", "too little memory", "ulimit -v"),
    ],
)
def test_libraries_that_this_machine_lacks_are_named(text: str, problem: str, fix: str) -> None:
    found = lost_library(text)
    assert found is not None
    assert problem in found[0]
    assert fix in found[1]
    assert lost_library("cannot import name 'x' from 'y'") is None


def test_a_limit_on_the_size_of_files_is_named(tmp_path: Path) -> None:
    code = "import sys, pathlib, wsss.files; wsss.files.write_whole(pathlib.Path(sys.argv[1]) / 'a', b'x' * 9000)"
    script = f'ulimit -f 1; {sys.executable} -c "{code}" {tmp_path}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "File too large (fix: raise the limit on the size of files (ulimit -f)" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_home_folder_is_known() -> None:
    home = str(Path.home())
    assert with_home("~/a") == f"{home}/a"
    assert with_home("--data=~/a") == f"--data={home}/a"
    assert [with_home(word) for word in ("~", "a~/b", "-o", "--set", "a=~/b")] == ["~", "a~/b", "-o", "--set", "a=~/b"]
    assert resolve(flags={"data.root": "~/photos"}).data.root == Path.home() / "photos"


def test_names_are_written_in_the_bytes_of_the_file_system(tmp_path: Path) -> None:
    """Also where standard output is ASCII, so that a program that reads them finds the files."""
    name = tmp_path / os.fsdecode(b"caf\xe9-\xc3\xa9.csv")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "tags.csv").write_text("image,labels\n")
    for environment in ({"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "latin-1"}):
        done = streams("data", "check", str(photos), "-o", os.fsdecode(os.fsencode(name)), **environment)
        assert b"Traceback" not in done.stderr
        if environment.get("PYTHONIOENCODING") != "latin-1":
            assert done.stdout == os.fsencode(name) + b"\n"
        assert name.is_file()


def test_messages_hold_no_control_characters(tmp_path: Path) -> None:
    done = streams("data", "check", str(tmp_path / "a\x1b[31m\tb"), PYTHONIOENCODING="ascii")
    error, fix = done.stderr.decode("ascii").splitlines()
    assert "a\\x1b[31m" in error
    assert fix.startswith("fix:   ")
