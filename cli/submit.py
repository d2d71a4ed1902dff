"""``wsss submit``: a command, or several that follow each other, as jobs of Slurm."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss.cli.options import JsonOption

if TYPE_CHECKING:
    from wsss.cluster.jobs import Request


def submit(
    words: Annotated[list[str] | None, typer.Argument(help="Command, after --.", metavar="COMMAND...")] = None,
    pipeline: Annotated[
        Path | None,
        typer.Option(help="Commands to run one after the other, one a line; - reads standard input.", metavar="FILE"),
    ] = None,
    time: Annotated[str | None, typer.Option(help="Time limit: minutes, H:M:S or D-H:M.", metavar="TIME")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each machine, with one process each.")] = 0,
    tasks: Annotated[int, typer.Option(min=1, help="Processes of each machine without GPUs.")] = 1,
    cpus: Annotated[int | None, typer.Option(min=1, help="Cores of each process.")] = None,
    array: Annotated[
        int, typer.Option(min=0, help="Divide make-pseudo and predict among so many tasks, and merge these.")
    ] = 0,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(help="Further option of sbatch, such as --partition=gpu.", metavar="OPTION"),
    ] = None,
    lead: Annotated[int, typer.Option(min=1, help="Seconds before the end of the time at which it saves.")] = 120,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the scripts and submit nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Submit a command to Slurm, or with --pipeline several, each of which begins when the one before is done.

    Each script is plain bash and lies beside the output: RUN.sbatch, with RUN.log. A training, a labelling or a
    prediction that Slurm asks to leave saves and goes back into the queue, until it is done or has been requeued three
    times without progress. Prints the numbers of the jobs on standard output, with --dry-run the scripts.
    """
    import shlex

    from wsss.cli.terminal import remark
    from wsss.cluster.jobs import SHARED, jobs_of, read_commands, sbatch_words
    from wsss.cluster.jobs import submit as hand_in
    from wsss.cluster.resources import Resources
    from wsss.cluster.script import script_of
    from wsss.errors import UsageError

    resources = Resources(
        time=time, nodes=nodes, gpus=gpus, tasks=tasks, cpus=cpus, lead=lead, options=tuple(sbatch or ())
    )
    if (pipeline is None) == (not words):
        raise UsageError("expected a command or --pipeline FILE", "wsss submit -- train-cls --data DIR -o RUN")
    commands = [tuple(words or ())] if pipeline is None else read_commands(*_text_of(pipeline))
    requests = [_request(command) for command in commands]
    if array and not any(request.command in SHARED for request in requests):
        raise UsageError(f"--array {array} divides {' and '.join(SHARED)} alone", "leave out --array")
    jobs = [job for at, request in enumerate(requests, 1) for job in jobs_of(request, resources, array, at)]
    if dry_run:
        for job in jobs:
            remark(shlex.join(sbatch_words(job, None if job is jobs[0] else "JOB")))
            typer.echo(script_of(job, sys.executable), nl=job is not jobs[-1])
        return
    submitted = hand_in(jobs, sys.executable)
    for one in submitted:
        log = f"{one.job.name}{'.*' if one.job.shards else ''}.log"
        remark(f"job {one.number}: {one.job.path}, its output is in {log}")
    if as_json:
        plain = [{"job": one.number, "script": str(one.job.path), "words": one.job.words} for one in submitted]
        typer.echo(json.dumps(plain))
    else:
        typer.echo("\n".join(one.number for one in submitted))


def _text_of(path: Path) -> tuple[Path | None, str]:
    """A file and its text; None and that of standard input for "-"."""
    from wsss.errors import UsageError

    if str(path) == "-":
        return None, sys.stdin.read()
    try:
        return path, path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"--pipeline {path}: cannot be read ({error})", f"ls {path.parent}") from error


def _request(words: Sequence[str]) -> Request:
    """Read a command with its own parser, so that a mistake is found now and not when its job begins."""
    from typer.main import get_command

    from wsss.cli.main import app
    from wsss.cluster.jobs import Request

    program: typer.core.TyperGroup = get_command(app)  # type: ignore[assignment]
    with program.context_class(program, info_name="wsss") as outer:
        name, command, rest = program.resolve_command(outer, list(words))
        assert command is not None
        with command.make_context(name, rest, parent=outer) as context:
            return Request(tuple(words), dict(context.params))
