"""Progress bars, remarks and tables, all on standard error."""

from __future__ import annotations

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

from wsss.cli.log import log
from wsss.reporting import visible

PLAIN_SECONDS = 60
"""Seconds between two lines of progress where standard error is not a terminal."""

console = Console(file=log, highlight=False)  # type: ignore[arg-type]  # it has all that Rich uses


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
        """Print a remark above the bar; it is one line, however long, where standard error is not a terminal."""
        console.print(visible(text), markup=False, soft_wrap=not console.is_terminal)
