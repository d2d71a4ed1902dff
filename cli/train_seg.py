"""``wsss train-seg``: a segmentation network, from pseudo labels or end to end from tags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, Given, ResumeOption, RunOption, configured


@configured(
    *("data.root", "output", "config", "assignments", "labels", "init", "model.backbone", "model.weights"),
    *("data.train_split", "data.val_split", *READING, "data.saliency"),
    *("segment.epochs", "segment.rounds", "segment.batch_size", "segment.lr", "segment.optimizer", "augment.size"),
    *("run.device", "run.amp", "run.seed", "run.workers", "run.deterministic", "resume"),
)
def train_seg(
    given: Given,
    output: RunOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Folder of label maps (of make-pseudo) to train on; without it, end to end."),
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Run of train-cls to start from.", metavar="RUN")] = None,
    resume: ResumeOption = None,
) -> None:
    """Train a segmentation network from tags.

    With --labels it trains on the label maps of a folder. Without, it makes pseudo labels inside each step (double
    backward); with --rounds 2 that network then labels the training split for a second one, which is the result.
    Prints the run folder on standard output.
    """
    from wsss.cli.running import new_run, refuse_beside_resume, refuse_together, resume_changes
    from wsss.cli.terminal import Terminal

    if resume is not None:
        refuse_beside_resume(resume, given, output=output, init=init)
    else:
        refuse_together("--init", init, given, "model.backbone", "model.weights")
        refuse_together("--labels", labels, given, "data.saliency", "segment.rounds")
        config, run = new_run(given, output, "wsss train-seg --data DIR -o RUN")

    with heavy_imports():
        from wsss.training.start import Moved, resume_segmenter, train_segmenter

    with Terminal() as terminal:
        if resume is not None:
            run = resume
            resume_segmenter(resume, terminal, Moved(**resume_changes(given), labels=labels))
        else:
            train_segmenter(config, run, terminal, labels=labels, init=init)
    typer.echo(run)
