"""``wsss train-cls``: learn from tags which classes an image holds."""

from __future__ import annotations

from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import (
    AmpOption,
    ConfigOption,
    DataOption,
    DeterministicOption,
    DeviceOption,
    ResumeOption,
    RunOption,
    SeedOption,
    SetOption,
    TagsFromOption,
    TagsOption,
    WorkersOption,
)


def train_cls(
    data: DataOption = None,
    output: RunOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    backbone: Annotated[str | None, typer.Option(help="A timm vision transformer (wsss backbones).")] = None,
    weights: Annotated[str | None, typer.Option(help="FILE.safetensors, FILE.pth, pretrained or none.")] = None,
    train_split: Annotated[str | None, typer.Option(help="Split to train on.")] = None,
    val_split: Annotated[str | None, typer.Option(help="Split to validate tags on.")] = None,
    tags: TagsOption = None,
    tags_from: TagsFromOption = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Largest learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or sgd-poly.")] = None,
    size: Annotated[int | None, typer.Option(help="Side of the training crops, pixels.")] = None,
    device: DeviceOption = None,
    amp: AmpOption = None,
    seed: SeedOption = None,
    workers: WorkersOption = None,
    deterministic: DeterministicOption = None,
    resume: ResumeOption = None,
) -> None:
    """Train an image-level-label transformer on images with tags.

    Prints the run folder on standard output.
    """
    from wsss.cli.running import refuse_beside_resume, run_folder
    from wsss.cli.terminal import Terminal
    from wsss.config import resolve

    flags = {
        "data.root": data,
        "data.train_split": train_split,
        "data.val_split": val_split,
        "data.tags": tags,
        "data.tags_from": tags_from,
        "model.backbone": backbone,
        "model.weights": weights,
        "augment.size": size,
        "classify.epochs": epochs,
        "classify.batch_size": batch_size,
        "classify.lr": lr,
        "classify.optimizer": optimizer,
        "run.device": device,
        "run.amp": amp,
        "run.seed": seed,
        "run.workers": workers,
        "run.deterministic": deterministic,
    }
    if resume is not None:
        refuse_beside_resume(resume, config, assignments, output, flags)
    else:
        settings = resolve(config, assignments or (), flags)
        run = run_folder(output, "wsss train-cls --data DIR -o RUN")

    with heavy_imports():
        from wsss.training.start import resume_classifier, train_classifier

    with Terminal() as terminal:
        if resume is not None:
            run = resume
            resume_classifier(resume, terminal)
        else:
            train_classifier(settings, run, terminal)
    typer.echo(run)
