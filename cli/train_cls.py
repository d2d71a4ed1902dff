"""``wsss train-cls``: learn from tags which classes an image holds."""

from __future__ import annotations

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, Given, ResumeOption, RunOption, configured


@configured(
    *("data.root", "output", "config", "assignments", "model.backbone", "model.weights"),
    *("data.train_split", "data.val_split", *READING),
    *(
        "classify.finetune",
        "classify.epochs",
        "classify.batch_size",
        "classify.lr",
        "classify.optimizer",
        "augment.size",
    ),
    *("run.device", "run.amp", "run.seed", "run.workers", "run.deterministic", "resume"),
)
def train_cls(given: Given, output: RunOption = None, resume: ResumeOption = None) -> None:
    """Train an image-level-label transformer on images with tags.

    Prints the run folder on standard output.
    """
    from wsss.cli.running import new_run, refuse_beside_resume, resume_changes
    from wsss.cli.terminal import Terminal

    if resume is not None:
        refuse_beside_resume(resume, given, output=output)
    else:
        config, run = new_run(given, output, "wsss train-cls --data DIR -o RUN")

    with heavy_imports():
        from wsss.training.start import Moved, resume_classifier, train_classifier

    with Terminal() as terminal:
        if resume is not None:
            run = resume
            resume_classifier(resume, terminal, Moved(**resume_changes(given)))
        else:
            train_classifier(config, run, terminal)
    typer.echo(run)
