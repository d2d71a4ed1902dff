"""Progress bars, remarks and tables, all on standard error."""

from __future__ import annotations

import os
import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from wsss.cli.log import log, printable

PLAIN_SECONDS = 60
"""Seconds between two lines of progress where standard error is not a terminal."""

WIDTH = 1000
"""Columns of a table where there is neither a terminal nor ``COLUMNS``: none is narrowed."""
LEAST_WIDTH = 40
"""Columns that a table takes at least."""


def make_console() -> Console:
    """The console of standard error. Variables such as FORCE_COLOR make no terminal of a file."""
    is_terminal = log.isatty()
    columns = os.environ.get("COLUMNS", "")
    told = max(int(columns), LEAST_WIDTH) if columns.isdecimal() and int(columns) else None
    if told is None:
        os.environ.pop("COLUMNS", None)  # Rich would take 0 as it is, and print nothing
    width = told or (None if is_terminal else WIDTH)
    return Console(file=log, highlight=False, force_terminal=is_terminal, width=width)  # type: ignore[arg-type]  # it has all that Rich uses


console = make_console()


def remark(text: str, style: str = "") -> None:
    """Print a line that is not wrapped: a terminal does that, so that a copied path is whole."""
    console.print(Text(printable(text), style=style), soft_wrap=True)


class Terminal:
    """A ``wsss.reporting.Reporter`` that draws a progress bar; a context manager."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Terminal:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """Replace the progress bar by a new one."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total, completed=done, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Advance the bar by ``count`` items; ``note`` replaces the text beside it."""
        if self._task is None:
            return
        self._progress.update(self._task, advance=count)
        if note:
            self._progress.update(self._task, note=note)
        if not console.is_terminal and time.monotonic() - self._last_line > PLAIN_SECONDS:
            self._last_line = time.monotonic()
            task = self._progress.tasks[-1]
            self.say(f"{task.description} {int(task.completed)}/{int(task.total or 0)}  {task.fields['note']}")

    def say(self, text: str) -> None:
        """Print a remark above the bar: one line, however long."""
        remark(text)
