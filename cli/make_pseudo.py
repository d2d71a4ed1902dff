"""``wsss make-pseudo``: class maps of tagged images, completed to pseudo labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import (
    AmpOption,
    CheckpointOption,
    ConfigOption,
    CrfOption,
    DataOption,
    DeterministicOption,
    DeviceOption,
    FlipOption,
    JsonOption,
    OutOption,
    ScalesOption,
    SetOption,
    TagsFromOption,
    TagsOption,
    WorkersOption,
    numbers,
)


def make_pseudo(
    run: Annotated[Path, typer.Argument(help="Run of train-cls or train-seg, or a checkpoint file.")],
    output: OutOption,
    data: DataOption = None,
    split: Annotated[str | None, typer.Option(help="Split to label.")] = None,
    config: ConfigOption = None,
    assignments: SetOption = None,
    tags: TagsOption = None,
    tags_from: TagsFromOption = None,
    method: Annotated[
        str | None,
        typer.Option(help="getam, attention-gradient, gradcam, rollout, chefer, attention or cam."),
    ] = None,
    coupling: Annotated[str | None, typer.Option(help="GETAM's: released or paper.")] = None,
    start_layer: Annotated[int | None, typer.Option(help="First block that counts, from 0.")] = None,
    scales: ScalesOption = None,
    flip: FlipOption = None,
    background: Annotated[str | None, typer.Option(help="power, or band (low, high, ignored between).")] = None,
    saliency: Annotated[Path | None, typer.Option(help="Folder of 8-bit saliency maps: extra supervision.")] = None,
    pamr_stride: Annotated[
        int | None, typer.Option(help="Refine at one Nth of each side: faster, coarser edges.", metavar="N")
    ] = None,
    decoder: Annotated[
        bool | None,
        typer.Option("--decoder/--no-decoder", help="Of a train-seg run: keep what maps and decoder agree on."),
    ] = None,
    crf: CrfOption = None,
    save_scores: Annotated[bool, typer.Option("--save-scores", help="Also write small 8-bit class scores.")] = False,
    overlays: Annotated[int, typer.Option(min=0, help="Also draw so many pictures.", metavar="N")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make again what is there.")] = False,
    checkpoint: CheckpointOption = "last",
    device: DeviceOption = None,
    amp: AmpOption = None,
    workers: WorkersOption = None,
    deterministic: DeterministicOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make pseudo labels from tags: class maps, PAMR, completion.

    The scale is 1.4 times that of the training's crops unless given.
    Images labelled already are skipped. Prints the output folder on standard output.
    """
    from wsss.cli.terminal import Terminal
    from wsss.config import resolve

    settings = resolve(
        config,
        assignments or (),
        {
            "data.root": data,
            "data.train_split": split,
            "data.tags": tags,
            "data.tags_from": tags_from,
            "data.saliency": saliency,
            "maps.method": method,
            "maps.coupling": coupling,
            "maps.start_layer": start_layer,
            "maps.scales": numbers(scales),
            "maps.flip": flip,
            "labels.background": background,
            "labels.pamr_stride": pamr_stride,
            "labels.decoder": decoder,
            "labels.crf": crf,
            "run.device": device,
            "run.amp": amp,
            "run.workers": workers,
            "run.deterministic": deterministic,
        },
    )
    with heavy_imports():
        from wsss.data.splits import open_to_label
        from wsss.inference.labelling import Wanted, make_pseudo_labels
        from wsss.inference.settings import for_run
        from wsss.labels.crf import require_crf
        from wsss.machine import prepare_device
        from wsss.models.checkpoint import file_hash, load_network

    if settings.labels.crf:
        require_crf()
    chosen = prepare_device(settings.run)
    network, trained, path = load_network(run, checkpoint)
    settings = for_run(settings, trained)
    with Terminal() as terminal:
        tagged = open_to_label(settings, terminal, network.classes)
        counts = make_pseudo_labels(
            network,
            tagged,
            output,
            settings,
            terminal,
            device=chosen,
            checkpoint_sha256=file_hash(path),
            wanted=Wanted(scores=save_scores, overlays=overlays, overwrite=overwrite),
        )
        terminal.say(f"{counts['made']} pseudo labels made, {counts['skipped']} there already")
        if counts["foreground"] == 0:
            terminal.say("they hold no class: train longer, or try another --method or --background")
    typer.echo(json.dumps({"output": str(output), "split": tagged.split, **counts}) if as_json else output)
