"""Checks of the command line that the training commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsss.cli.options import Given, option_of
from wsss.config import Config
from wsss.errors import UsageError


def new_run(given: Given, output: Path | None, example: str) -> tuple[Config, Path]:
    """The config and the folder of a new run.

    Args:
        given: of the command line.
        output: value of ``-o``.
        example: a complete command, for the message where there is no ``-o``.

    Raises:
        UsageError: the config has mistakes, or no folder was given.
    """
    config = given.resolve()
    if output is None:
        raise UsageError("no output folder was given", example)
    return config, output


MOVABLE = ("data.root", "data.tags", "data.saliency", "run.workers", "run.device")
"""Keys whose options may stand beside ``--resume``: where the data of the run lie now, and on what it is trained."""


def refuse_beside_resume(resume: Path, given: Given, **others: Path | None) -> None:
    """Refuse other options beside ``--resume``: a resumed run keeps its own config, so that its result is the same.

    Args:
        resume: folder of the run.
        given: of the command line; ``MOVABLE`` keys may be among its flags.
        others: further options of the command, by name; None where not given.

    Raises:
        UsageError: an option was given.
    """
    names = [option_of(name) for name in given.names() if name not in MOVABLE]
    names += [f"--{name}" for name, value in others.items() if value is not None]
    if names:
        raise UsageError(
            f"--resume {resume} uses the run's own config; it takes no {', '.join(names)}",
            f"--resume {resume}  # or begin a new run: -o RUN",
        )


def resume_changes(given: Given) -> dict[str, Any]:
    """What differs for a resumed run: the values of the ``MOVABLE`` options, by the last part of their key."""
    return {key.rpartition(".")[2]: given.flags.get(key) for key in MOVABLE}


def refuse_together(flag: str, value: Path | None, given: Given, *keys: str) -> None:
    """Refuse options that another one would make useless.

    Args:
        flag: the other option.
        value: its value; None where it was not given.
        given: of the command line.
        keys: config keys of the options that ``flag`` makes useless.

    Raises:
        UsageError: both were given.
    """
    useless = [f"--{key.rpartition('.')[2]}" for key in keys if given.flags[key] is not None]
    if value is not None and useless:
        raise UsageError(f"{flag} and {', '.join(useless)} exclude each other", f"leave out {useless[0]} or {flag}")
