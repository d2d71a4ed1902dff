"""``wsss train-seg``: a segmentation network, from pseudo labels or end to end from tags."""

from __future__ import annotations

from pathlib import Path
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


def train_seg(
    data: DataOption = None,
    output: RunOption = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Folder of label maps (of make-pseudo) to train on; without it, end to end."),
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Run of train-cls to start from.", metavar="RUN")] = None,
    backbone: Annotated[str | None, typer.Option(help="A timm vision transformer (wsss backbones).")] = None,
    weights: Annotated[str | None, typer.Option(help="FILE.safetensors, FILE.pth, pretrained or none.")] = None,
    train_split: Annotated[str | None, typer.Option(help="Split to train on.")] = None,
    val_split: Annotated[str | None, typer.Option(help="Split to validate on, where it has masks.")] = None,
    tags: TagsOption = None,
    tags_from: TagsFromOption = None,
    saliency: Annotated[Path | None, typer.Option(help="Folder of 8-bit saliency maps: extra supervision.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Trainings in a row; each labels the images for the next.", metavar="N")
    ] = None,
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
    """Train a segmentation network from tags.

    With --labels it learns the label maps of a folder; without, pseudo labels are made inside each step
    (double backward), and with --rounds 2 such a run teaches a second one, which is the result.
    Prints the run folder on standard output.
    """
    from wsss.cli.running import refuse_beside_resume, refuse_together, run_folder
    from wsss.cli.terminal import Terminal
    from wsss.config import resolve

    flags = {
        "data.root": data,
        "data.train_split": train_split,
        "data.val_split": val_split,
        "data.tags": tags,
        "data.tags_from": tags_from,
        "data.saliency": saliency,
        "model.backbone": backbone,
        "model.weights": weights,
        "augment.size": size,
        "segment.epochs": epochs,
        "segment.rounds": rounds,
        "segment.batch_size": batch_size,
        "segment.lr": lr,
        "segment.optimizer": optimizer,
        "run.device": device,
        "run.amp": amp,
        "run.seed": seed,
        "run.workers": workers,
        "run.deterministic": deterministic,
    }
    if resume is not None:
        refuse_beside_resume(resume, config, assignments, output, {**flags, "labels": labels, "init": init})
    else:
        refuse_together(init is not None, "--init", backbone=backbone, weights=weights)
        refuse_together(labels is not None, "--labels", saliency=saliency, rounds=rounds)
        settings = resolve(config, assignments or (), flags)
        run = run_folder(output, "wsss train-seg --data DIR -o RUN")

    with heavy_imports():
        from wsss.training.start import resume_segmenter, train_segmenter

    with Terminal() as terminal:
        if resume is not None:
            run = resume
            resume_segmenter(resume, terminal)
        else:
            train_segmenter(settings, run, terminal, labels=labels, init=init)
    typer.echo(run)
