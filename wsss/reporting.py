"""Progress and remarks of long work. The command line shows them; the library prints nothing itself."""

from collections.abc import Sequence
from typing import Protocol


class Reporter(Protocol):
    """Receives progress and remarks."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """A new task of ``total`` items begins; ``done`` of them were finished in an earlier run."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """``count`` more items are done; ``note`` replaces the text beside the bar."""

    def say(self, text: str) -> None:
        """A remark that stays on the screen."""


class Silent:
    """A reporter that shows nothing."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Ignore."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Ignore."""


def first_few(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a list, and dots where there are more: "a, b, c, ..."."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
