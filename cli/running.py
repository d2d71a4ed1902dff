"""Checks of the command line that training commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsss.errors import UsageError


def run_folder(output: Path | None, example: str) -> Path:
    """The folder given by -o; without one there is nothing to do."""
    if output is None:
        raise UsageError("no output folder was given", example)
    return output


def refuse_beside_resume(
    resume: Path,
    config: str | None,
    assignments: Sequence[str] | None,
    output: Path | None,
    flags: Mapping[str, Any],
) -> None:
    """A resumed run keeps its own config, so that it ends as if it had never stopped."""
    given = [key for key, value in flags.items() if value is not None]
    given += ["--config"] * (config is not None) + ["--set"] * bool(assignments) + ["--output"] * (output is not None)
    if given:
        raise UsageError(
            f"--resume {resume} goes on with the run's own config; it takes no {', '.join(given)}",
            f"--resume {resume}",
        )


def refuse_together(given: bool, flag: str, **others: object) -> None:
    """Refuse flags that would be ignored beside another one."""
    unheard = [f"--{name}" for name, value in others.items() if value is not None]
    if given and unheard:
        raise UsageError(f"{flag} and {', '.join(unheard)} exclude each other", f"leave out {unheard[0]} or {flag}")
