"""``wsss predict``: masks and overlays of plain images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, CheckpointOption, Given, JsonOption, OutOption, configured


@configured(
    *("run", "images", "output", "split", *READING, "config", "assignments"),
    *("predict.scales", "predict.flip", "predict.tile", "predict.crf", "overlays", "overwrite", "checkpoint"),
    *("run.device", "run.amp", "run.workers", "run.deterministic", "as_json"),
)
def predict(
    given: Given,
    run: Annotated[Path, typer.Argument(help="Run of train-seg, or a checkpoint file.")],
    images: Annotated[Path, typer.Argument(help="An image, a folder of images, or with --split a data folder.")],
    output: OutOption,
    split: Annotated[str | None, typer.Option(help="Take the images of this split; their tags are not used.")] = None,
    overlays: Annotated[bool, typer.Option("--overlays/--no-overlays", help="Draw the masks over the images.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also make again what exists.")] = False,
    checkpoint: CheckpointOption = "last",
    as_json: JsonOption = False,
) -> None:
    """Segment images without tags.

    Scales, flip and CRF are those of the run's own config, unless -c, --set or a flag says otherwise; without any
    --scales, images are read at the side of the training crops. Images that have a mask already are skipped.
    Prints the output folder on standard output.
    """
    from wsss.cli.terminal import Terminal

    early = given.check()
    with heavy_imports():
        from wsss.data.dataset import format_of, open_data, open_unlabelled
        from wsss.data.findings import telling
        from wsss.data.geo import remark
        from wsss.data.index import keep_readable_records
        from wsss.data.levels import with_levels
        from wsss.data.records import Record
        from wsss.errors import DataError, UsageError
        from wsss.inference.predicting import predict_masks
        from wsss.inference.settings import predict_words
        from wsss.labels.crf import require_crf
        from wsss.machine import prepare_device
        from wsss.models.checkpoint import file_hash, load_network
        from wsss.outputs.choices import use_words

    if early.predict.crf:
        require_crf()
    chosen = prepare_device(early.run)
    if not (run / "run.json").is_file() and (images / "run.json").is_file():
        raise UsageError(
            f"{images} is a run and {run} is none: the run comes first", f"wsss predict {images} {run} -o OUT"
        )
    network, trained, path = load_network(run, checkpoint)
    settings = given.resolve_for(trained)
    if settings.predict.crf:
        require_crf("--no-crf")
    listed: Sequence[Record]
    with Terminal() as terminal:
        note = telling(terminal.say)
        if split is None:
            listed, kind = open_unlabelled(images, early.data, note=note), format_of(images, early.data)
        else:
            opened = open_data(images, split=split, reading=early.data, need_tags=False, note=note)
            listed, kind = opened.records, opened.format
        origin = f"{images} (format {kind})" if kind else str(images)
        terminal.say(predict_words(settings, trained))
        records, bad = keep_readable_records(listed, reporter=terminal)
        for message in bad:
            terminal.say(f"skipped {message}")
        if not records:
            raise DataError(f"{images}: no image can be read ({bad[0]})", "convert it to PNG or JPEG")
        if words := remark(records.paths):
            terminal.say(words)
        records = with_levels(records, settings.data.levels, terminal.say)
        terminal.say(use_words(settings.run, chosen, origin, split, len(records)))
        counts = predict_masks(
            network,
            records,
            output,
            settings,
            terminal,
            device=chosen,
            checkpoint_sha256=file_hash(path),
            split=split,
            origin={"data": str(images.absolute()), "format": kind},
            overlays=overlays,
            overwrite=overwrite,
        )
        terminal.say(f"{counts['made']} masks made, {counts['skipped']} there already")
        if counts["foreground"] == 0:
            terminal.say("they hold background alone: the training was probably too short (--epochs)")
    typer.echo(json.dumps({"output": str(output), **counts, "unreadable": len(bad)}) if as_json else output)
