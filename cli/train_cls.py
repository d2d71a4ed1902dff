"""``wsss train-cls``: learn from tags which classes an image holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, get_args

import typer

from wsss.cli import completing
from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, AgainOption, Given, ResumeOption, RunOption, configured
from wsss.errors import UsageError
from wsss.sections import EditName

EDITS = get_args(EditName)
MEMORY_BYTES = 2_000_000
"""Of a memory, where --memory does not say how many."""


@configured(
    *("data.root", "output", "config", "assignments", "init", "model.backbone", "model.weights"),
    *("attention", "guide", "extend", "classify.distil", "classify.weight_distil", "memory", "memory_side"),
    *("data.train_split", "data.val_split", *READING),
    *(
        "classify.finetune",
        "classify.epochs",
        "classify.batch_size",
        "classify.accumulate",
        "classify.lr",
        "classify.optimizer",
        "augment.size",
    ),
    *(
        "run.device",
        "run.amp",
        "run.seed",
        "run.workers",
        "run.deterministic",
        "run.verify_steps",
        "resume",
        "resume_or_start",
    ),
)
def train_cls(
    given: Given,
    output: RunOption = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Run to go on from: its network and classes, with a new optimiser.", metavar="RUN"),
    ] = None,
    attention: Annotated[
        list[str] | None,
        typer.Option(
            help="An edit of the backbone's attention to learn with it; may be repeated. Its blocks: model.attention.",
            metavar="|".join(EDITS),
            autocompletion=completing.words(*EDITS),
        ),
    ] = None,
    guide: Annotated[
        Path | None,
        typer.Option(
            help="Folder of label maps (of make-pseudo) that guide --attention object-aware.", metavar="LABELS"
        ),
    ] = None,
    extend: Annotated[
        Path | None,
        typer.Option(help="Run whose network is to learn the classes of DIR that it does not know.", metavar="RUN"),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            help="With --extend: bytes of the images of all classes that RUN/memory keeps; 0 none.  [default: 2000000]",
            min=0,
            metavar="BYTES",
        ),
    ] = None,
    memory_side: Annotated[
        int | None,
        typer.Option(
            help="With --extend: side in pixels of images in the memory.  [default: augment.size]", min=1, metavar="PX"
        ),
    ] = None,
    resume: ResumeOption = None,
    resume_or_start: AgainOption = False,
) -> None:
    """Train an image-level-label transformer on images with tags.

    Prints the run folder on standard output.
    """
    from wsss.cli.running import (
        changes_of_begun,
        new_run,
        processes,
        refuse_beside_resume,
        refuse_together,
        resume_changes,
    )

    kept = {"memory": memory, "memory-side": memory_side}
    if attention:
        given = given.with_key("model.attention", [_edit(name, guide) for name in attention])
    if resume is not None:
        refuse_beside_resume(
            resume, given, again=resume_or_start, output=output, init=init, guide=guide, extend=extend, **kept
        )
    else:
        refuse_together("--init", init, given, "model.weights")
        refuse_together("--extend", extend, given, "model.weights")
        if extend is None:
            _refuse_lone(given, kept)
        config, run = new_run(given, output, "wsss train-cls --data DIR -o RUN")

    with heavy_imports():
        from wsss.data.memory import Limits
        from wsss.training.start import Moved, resume_classifier, train_classifier

    with processes() as (ranks, reporter):
        changes = None if resume is None else resume_changes(given)
        limits = None
        if resume is None and extend is not None and memory != 0:
            limits = Limits(memory or MEMORY_BYTES, memory_side or config.augment.size)
        if resume_or_start:
            memory_asked = {} if limits is None else limits.asked()
            changes = changes_of_begun(run, config, ranks, memory_asked, init=init, extend=extend, guide=guide)
        if changes is not None:
            run = resume or run
            resume_classifier(run, reporter, Moved(**changes), ranks=ranks)
        else:
            train_classifier(config, run, reporter, init=init, extend=extend, memory=limits, guide=guide, ranks=ranks)
    if ranks.rank == 0:
        typer.echo(run)


def _refuse_lone(given: Given, kept: Mapping[str, int | None]) -> None:
    """Refuse options that only --extend reads.

    Raises:
        UsageError: one was given.
    """
    keys = {"distil": "classify.distil", "weight-distil": "classify.weight_distil"}
    values = {name: given.flags[key] for name, key in keys.items()} | dict(kept)
    lone = next((name for name, value in values.items() if value is not None), None)
    if lone is not None:
        raise UsageError(f"--{lone} is of an extension by new classes", f"--extend RUN, or leave out --{lone}")


def _edit(name: str, guide: Path | None) -> dict[str, str]:
    """An edit of the option --attention as the config has it."""
    return {"name": name, "guide": "labels"} if guide is not None and name == "object-aware" else {"name": name}
