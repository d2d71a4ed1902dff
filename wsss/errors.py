"""Errors that the user can correct: what is wrong, where, and a command that corrects it.

The command line prints them as two lines (``error:`` and ``fix:``) without a traceback and exits with their exit
status. Any other exception is a bug: it is printed with its traceback and the exit status is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class WsssError(Exception):
    """A problem that the user can correct.

    Args:
        problem: the offending value, where it came from and what was expected.
        fix: one command (or one short instruction) that corrects it.

    Attributes:
        kind: the name of its page (`wsss explain`).
        is_said: whether another process of a training prints it.
    """

    exit_status = 1
    kind = ""
    is_said = False

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem} (fix: {self.fix})"

    def __reduce__(self) -> tuple[Callable[..., WsssError], tuple[type[WsssError], dict[str, Any]]]:
        """Pickled by its attributes: the constructors of subclasses take other arguments."""
        return _rebuilt, (type(self), self.__dict__)


def _rebuilt(kind: type[WsssError], attributes: dict[str, Any]) -> WsssError:
    error = kind.__new__(kind, attributes["problem"])
    error.__dict__.update(attributes)
    return error


class UsageError(WsssError):
    """A flag, a config key or a combination of them that cannot work."""

    exit_status = 2
    kind = "usage"


class DataError(WsssError):
    """A data set, an image, a tag, a weights file or a checkpoint that cannot be used."""

    exit_status = 3
    kind = "data"


class MachineError(WsssError):
    """Something that this machine lacks: an optional package, CUDA, memory, disk space."""

    exit_status = 4
    kind = "machine"


class Interrupted(WsssError):
    """The run was asked to stop, saved its state and can be resumed."""

    exit_status = 75
    kind = "interrupted"
