"""What long work tells the person who waits for it. The command line draws it; the library stays silent."""

from typing import Protocol


class Reporter(Protocol):
    """Receives progress and remarks."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """A new stretch of work of ``total`` items begins, ``done`` of them finished earlier."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """``count`` more items are done; ``note`` replaces the text beside the bar."""

    def say(self, text: str) -> None:
        """A remark that stays on the screen."""


class Silent:
    """Says nothing."""

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Ignore."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Ignore."""

    def say(self, text: str) -> None:
        """Ignore."""
