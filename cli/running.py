"""Checks of the command line that the training commands share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.cli.options import Given, option_of
from wsss.config import Config, resolve
from wsss.errors import UsageError, WsssError
from wsss.reporting import Reporter, Silent

if TYPE_CHECKING:
    from wsss.training.ranks import Ranks


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


MOVABLE = ("data.root", "data.tags", "data.saliency", "run.workers", "run.device", "run.verify_steps")
"""Keys whose options may stand beside ``--resume``: where the data of the run lie now, and on what it is trained."""


def refuse_beside_resume(resume: Path, given: Given, *, again: bool = False, **others: Path | int | None) -> None:
    """Refuse other options beside ``--resume``: a resumed run keeps its own config, so that its result is the same.

    Args:
        resume: folder of the run.
        given: of the command line; ``MOVABLE`` keys may be among its flags.
        again: whether ``--resume-or-start`` was given.
        others: further options of the command, by name; None where not given.

    Raises:
        UsageError: an option was given.
    """
    names = [option_of(name) for name in given.names() if name not in MOVABLE]
    names += [f"--{name}" for name, value in others.items() if value is not None]
    names += ["--resume-or-start"] * again
    if names:
        raise UsageError(
            f"--resume {resume} uses the run's own config; it takes no {', '.join(names)}",
            f"--resume {resume}  # or begin a new run: -o RUN",
        )


def resume_changes(given: Given) -> dict[str, Any]:
    """What differs for a resumed run: the values of the ``MOVABLE`` options, by the last part of their key."""
    return {key.rpartition(".")[2]: given.flags.get(key) for key in MOVABLE}


def changes_of_begun(
    run: Path, config: Config, ranks: Ranks, more: Mapping[str, Any] | None = None, **inputs: Path | None
) -> dict[str, Any] | None:
    """What ``--resume-or-start`` resumes a run with, as `resume_changes`; None where the run is to be begun.

    Args:
        run: its folder.
        config: what is asked for now.
        ranks: the processes that train it.
        more: plain values of further options.
        inputs: files and folders of further options of the command, by name.

    Raises:
        UsageError: it was begun with other settings.
        DataError: it does not say with which.
    """
    from wsss.outputs.asked import asked_for, goes_on

    if not ranks.lead(lambda: goes_on(run, asked_for(config, **inputs) | dict(more or {}))):
        return None
    config = config.anchored()
    run_again = {name: getattr(config.run, name) for name in ("workers", "device", "verify_steps")}
    return {"root": config.data.root, **run_again}


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


@contextmanager
def processes() -> Iterator[tuple[Ranks, Reporter]]:
    """The processes that train together (`wsss.training.ranks`), and where this one reports: rank 0 to the terminal."""
    from wsss.cli.terminal import Terminal
    from wsss.training.ranks import joined

    with joined() as ranks:
        if ranks.rank:
            yield ranks, Silent()
            return
        with Terminal() as terminal:
            yield ranks, terminal


REPORT, REPORTED = "report.html", 300
"""File of a run that shows how its training went, and how many of its label maps at most."""


def report_on(run: Path, labels: Path | None) -> None:
    """Write the report of a finished training into its folder, without opening masks; a failure is a warning.

    Args:
        run: the folder.
        labels: the folder of label maps that it learnt from, where one was given.
    """
    from wsss.cli.terminal import Terminal, remark
    from wsss.data.images import MANIFEST
    from wsss.outputs.manifest import made_in

    paths = [run]
    if labels is not None and (made_in(labels) / MANIFEST).is_file():
        paths.append(labels)
    try:
        from wsss.report.page import write_page
        from wsss.report.sources import Scoring

        scoring = Scoring(reading=resolve(run / "config.yaml", say=lambda text: None).data, score=False)
        with Terminal() as terminal:
            write_page(paths, run / REPORT, terminal, scoring=scoring, limit=REPORTED)
        remark(f"{run / REPORT} shows its curves and the label maps that it learnt from")
    except Exception as error:
        what = error.problem if isinstance(error, WsssError) else f"{type(error).__name__}: {error}"
        remark(f"the run is complete, but has no report: {what}", "yellow")
