"""Completion in the real shells, and the words that are offered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsss.cli import completing
from wsss.cli.completion import WAYS

Program = Callable[..., Any]


def shell(name: str, script: str) -> list[str]:
    """Lines that a shell prints; `wsss` is the program of this Python."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    words = [name, "-f", "-c", script] if name == "zsh" else [name, "-c", script]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def test_bash() -> None:
    script = 'eval "$(wsss completion bash)"\n'
    script += "COMP_WORDS=(wsss train-); COMP_CWORD=1; _wsss_completion wsss; echo ${COMPREPLY[@]}\n"
    script += "COMP_WORDS=(wsss train-cls -c voc-de); COMP_CWORD=3; _wsss_completion wsss; echo ${COMPREPLY[@]}\n"
    script += "COMP_WORDS=(wsss predict --ten); COMP_CWORD=2; _wsss_completion wsss; echo ${COMPREPLY[@]}\n"
    assert shell("bash", script)[:3] == ["train-cls train-seg", "voc-deit-s", ""]


def test_fish() -> None:
    lines = shell("fish", 'wsss completion fish | source; complete -C "wsss train-"; complete -C "wsss data ch"')
    assert [line.split("\t")[0] for line in lines if line] == ["train-cls", "train-seg", "check"]


@pytest.mark.slow
def test_zsh() -> None:
    script = r"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'autoload -Uz compinit; compinit -u; eval "$(wsss completion zsh)"; PS1=ready; echo be""gun'
while zpty -r z line; do [[ $line == *begun* ]] && break; done
zpty -n -w z $'wsss train-\t'
found=""
for i in {1..80}; do sleep 0.1; zpty -r -t z part && found+=$part; [[ $found == *train-seg* ]] && break; done
print -r -- $found
zpty -d z
"""
    said = "\n".join(shell("zsh", script))
    assert "train-cls" in said
    assert "train-seg" in said


def test_another_shell(wsss: Program) -> None:
    assert "there is completion for bash, zsh, fish" in wsss("completion", "tcsh").error()[0]
    assert [*WAYS] == ["bash", "zsh", "fish"]


def test_what_is_offered() -> None:
    assert "segment.epochs=" in completing.assignments("segment.ep")
    assert completing.words("last", "best")("b") == ["best"]
    assert "demo" in completing.presets("")
    assert completing.written_formats("coco-") == ["coco-results"]
    assert {"auto", "voc"} <= {*completing.read_formats("")}


def test_config_diff_and_copy(wsss: Program, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    assert wsss("config", "copy", "demo", mine).out.strip() == str(mine)
    assert mine.read_text().startswith("#")  # the comments of the preset
    assert "exists" in wsss("config", "copy", "demo", mine).error()[0]
    assert wsss("config", "diff", "demo", mine).out == ""
    other = tmp_path / "run" / "config.yaml"
    wsss("config", "copy", mine, other, "--set", "segment.epochs=77")
    assert wsss("config", "diff", mine, other.parent).out.split("\t")[0] == "segment.epochs"
    found = json.loads(wsss("config", "diff", mine, other, "--json").out)
    assert [*found] == ["segment.epochs"]
    assert found["segment.epochs"][1] == 77
    assert "augment.size" in json.loads(wsss("config", "diff", "demo", "--json").out)
    assert wsss("config", "diff", "nowhere").status == 2


def test_doctor(wsss: Program, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = wsss("doctor", "--data", scenes, "--weights", "none", "--json")
    assert result.status == 0, result.err
    assert {one["name"]: one["status"] for one in json.loads(result.out)}["data"] == "ok"
    lost = wsss("doctor", "--weights", "gone.pth")
    assert lost.status == 4
    assert "weights: gone.pth: no such file" in lost.error()[0]
