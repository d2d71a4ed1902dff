"""``wsss train-cls``: learn from tags which classes an image holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from wsss.cli import completing
from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, AgainOption, Given, ResumeOption, RunOption, configured
from wsss.sections import EditName

EDITS = get_args(EditName)


@configured(
    *("data.root", "output", "config", "assignments", "init", "model.backbone", "model.weights"),
    *("attention", "guide"),
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

    if attention:
        given = given.with_key("model.attention", [_edit(name, guide) for name in attention])
    if resume is not None:
        refuse_beside_resume(resume, given, again=resume_or_start, output=output, init=init, guide=guide)
    else:
        refuse_together("--init", init, given, "model.weights")
        config, run = new_run(given, output, "wsss train-cls --data DIR -o RUN")

    with heavy_imports():
        from wsss.training.start import Moved, resume_classifier, train_classifier

    with processes() as (ranks, reporter):
        changes = None if resume is None else resume_changes(given)
        if resume_or_start:
            changes = changes_of_begun(run, config, ranks, init=init, guide=guide)
        if changes is not None:
            run = resume or run
            resume_classifier(run, reporter, Moved(**changes), ranks=ranks)
        else:
            train_classifier(config, run, reporter, init=init, guide=guide, ranks=ranks)
    if ranks.rank == 0:
        typer.echo(run)


def _edit(name: str, guide: Path | None) -> dict[str, str]:
    """An edit of the option --attention as the config has it."""
    return {"name": name, "guide": "labels"} if guide is not None and name == "object-aware" else {"name": name}
