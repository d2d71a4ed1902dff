"""Progress bars, remarks and tables, all on standard error: for people, or with ``--log-json`` for programs."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from wsss.cli.log import event, log, printable, style

PLAIN_SECONDS = 60
"""Seconds between two lines of progress where standard error is not a terminal."""
JSON_SECONDS = 1
"""The same of ``--log-json``."""

WIDTH = 1000
"""Columns of a table where there is neither a terminal nor ``COLUMNS``: none is narrowed."""
LEAST_WIDTH = 40
"""Columns that a table takes at least."""


class StandardError(Console):
    """The console of standard error; what it prints becomes events, or nothing, where the command line says so."""

    @property
    def is_terminal(self) -> bool:
        """Whether bars and pictures can be drawn."""
        return super().is_terminal and not (style.quiet or style.as_json)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print text and tables."""
        if style.quiet:
            return
        if not style.as_json:
            super().print(*objects, **options)
            return
        for one in objects:
            if isinstance(one, Table):
                columns = [_plain(column.header) for column in one.columns]
                rows = [
                    list(map(_plain, cells)) for cells in zip(*(column.cells for column in one.columns), strict=True)
                ]
                event("table", title=_plain(one.title), columns=columns, rows=rows)
            else:
                event("remark", text=_plain(one))


def _plain(text: Any) -> str:
    """Text without colours, in one line."""
    return " ".join(str(text or "").split("\n"))


def make_console() -> StandardError:
    """The console of standard error. Variables such as FORCE_COLOR make no terminal of a file."""
    is_terminal = log.isatty()
    columns = os.environ.get("COLUMNS", "")
    told = max(int(columns), LEAST_WIDTH) if columns.isdecimal() and int(columns) else None
    if told is None:
        os.environ.pop("COLUMNS", None)  # Rich would take 0 as it is, and print nothing
    width = told or (None if is_terminal else WIDTH)
    return StandardError(file=log, highlight=False, force_terminal=is_terminal, width=width)  # type: ignore[arg-type]  # it has all that Rich uses


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
        if style.as_json:
            self._line()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Advance the bar by ``count`` items; ``note`` replaces the text beside it."""
        if self._task is None:
            return
        self._progress.update(self._task, advance=count)
        if note:
            self._progress.update(self._task, note=note)
        if not console.is_terminal and self._is_time():
            self._line()

    def say(self, text: str) -> None:
        """Print a remark above the bar: one line, however long."""
        remark(text)

    def _is_time(self) -> bool:
        """Whether a line of progress is due; with ``--log-json`` also at the end of a task."""
        passed = time.monotonic() - self._last_line
        return passed > (JSON_SECONDS if style.as_json else PLAIN_SECONDS) or (style.as_json and self._now.finished)

    def _line(self) -> None:
        """Say how far the task is."""
        self._last_line = time.monotonic()
        task, note = self._now, self._now.fields["note"]
        done, total = int(task.completed), int(task.total or 0)
        if not style.as_json:
            self.say(f"{task.description} {done}/{total}  {note}")
        elif not style.quiet:
            event("progress", task=task.description, done=done, total=total, note=note)

    @property
    def _now(self) -> Task:
        return self._progress.tasks[-1]
