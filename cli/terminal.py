"""What people see: progress bars, remarks and tables, all on standard error."""

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

PLAIN_SECONDS = 60
"""Where nobody watches (a log file), a plain line of progress appears so often."""

console = Console(stderr=True, highlight=False)


class Terminal:
    """A ``wsss.reporting.Reporter`` that draws; use it as a context."""

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
        """A new bar; the last one goes."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total, completed=done, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move the bar."""
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
        """A line above the bar."""
        console.print(text, markup=False)
