"""A fixture that runs the program inside the test process: arguments in; status, standard output and error out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from wsss.cli.main import run


class Result(NamedTuple):
    """Exit status and output of the program."""

    status: int
    out: str
    err: str

    def error(self) -> tuple[str, str]:
        """The two lines of an error; they must be the last ones but its page, and standard output must be empty."""
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        if lines[-1].startswith("more:  wsss explain "):
            lines.pop()
        problem, fix = lines[-2:]
        assert problem.startswith("error: ")
        assert fix.startswith("fix:   ")
        return problem.removeprefix("error: "), fix.removeprefix("fix:   ")


@pytest.fixture
def wsss(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["wsss", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            run()
        code = left.value.code
        return Result(code if isinstance(code, int) else 0, *capsys.readouterr())

    return call
