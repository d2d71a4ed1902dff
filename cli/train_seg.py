"""``wsss train-seg``: a segmentation network, from pseudo labels or end to end from tags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, AgainOption, Given, ResumeOption, RunOption, configured


@configured(
    *("data.root", "output", "config", "assignments", "labels", "corrected", "init", "model.backbone", "model.weights"),
    *("data.train_split", "data.val_split", *READING, "data.saliency"),
    *("segment.finetune", "segment.epochs", "segment.rounds", "segment.batch_size", "segment.accumulate"),
    *("segment.lr", "segment.optimizer", "augment.size"),
    *("run.device", "run.amp", "run.seed", "run.workers", "run.deterministic", "run.verify_steps"),
    *("report", "resume", "resume_or_start"),
)
def train_seg(
    given: Given,
    output: RunOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Folder of label maps (of make-pseudo) to train on; without it, end to end."),
    ] = None,
    corrected: Annotated[
        Path | None,
        typer.Option(help="Folder of masks NAME.png that people made of some of the images.", metavar="DIR"),
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Run of train-cls to start from.", metavar="RUN")] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="At the end write RUN/report.html; it opens no mask.")
    ] = True,
    resume: ResumeOption = None,
    resume_or_start: AgainOption = False,
) -> None:
    """Train a segmentation network from tags.

    With --labels it trains on the label maps of a folder. Without, it makes pseudo labels inside each step (double
    backward); with --rounds 2 that network then labels the training split for a second one, which is the result.
    Images with a mask in --corrected learn from that instead, in every round.
    A report of curves and label maps is written at the end. Prints the run folder on standard output.
    """
    from wsss.cli.running import (
        changes_of_begun,
        new_run,
        processes,
        refuse_beside_resume,
        refuse_together,
        report_on,
        resume_changes,
    )

    if resume is not None:
        refuse_beside_resume(resume, given, again=resume_or_start, output=output, init=init, corrected=corrected)
    else:
        refuse_together("--init", init, given, "model.backbone", "model.weights")
        refuse_together("--labels", labels, given, "data.saliency", "segment.rounds")
        config, run = new_run(given, output, "wsss train-seg --data DIR -o RUN")

    with heavy_imports():
        from wsss.training.start import Moved, resume_segmenter, train_segmenter

    with processes() as (ranks, reporter):
        changes = None if resume is None else resume_changes(given) | {"labels": labels}
        if resume_or_start:
            changes = changes_of_begun(run, config, ranks, labels=labels, init=init, corrected=corrected)
        if changes is not None:
            run = resume or run
            resume_segmenter(run, reporter, Moved(**changes), ranks=ranks)
        else:
            train_segmenter(config, run, reporter, labels=labels, init=init, corrected=corrected, ranks=ranks)
    if ranks.rank == 0:
        if report:
            report_on(run, labels)
        typer.echo(run)
