"""``wsss predict``: masks and overlays of plain images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import (
    READING,
    CheckpointOption,
    Given,
    JsonOption,
    OutOption,
    PaletteOption,
    RefinerOption,
    ShardOption,
    configured,
)


@configured(
    *("run", "images", "output", "onnx", "split", *READING, "config", "assignments"),
    *("predict.scales", "predict.flip", "predict.tile", "predict.crf", "refiner", "overlays", "palette"),
    *("overwrite", "checkpoint", "shard", "run.device", "run.amp", "run.workers", "run.deterministic", "as_json"),
)
def predict(
    given: Given,
    run: Annotated[Path, typer.Argument(help="Run of train-seg, or a checkpoint file; left out with --onnx.")],
    images: Annotated[
        Path | None, typer.Argument(help="An image, a folder of images, or with --split a data folder.")
    ] = None,
    *,
    output: OutOption,
    onnx: Annotated[
        Path | None, typer.Option(help="File of wsss export to use in place of a run.", metavar="FILE")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Take the images of this split; their tags are not used.")] = None,
    overlays: Annotated[bool, typer.Option("--overlays/--no-overlays", help="Draw the masks over the images.")] = True,
    palette: PaletteOption = "voc",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also make again what exists.")] = False,
    checkpoint: CheckpointOption = "last",
    shard: ShardOption = None,
    refiner: RefinerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Segment images without tags.

    Scales, flip and CRF are those of the run's own config, unless -c, --set or a flag says otherwise; without any
    --scales, images are read at the side of the training crops. Images that have a mask already are skipped.
    Prints the output folder on standard output.
    """
    from wsss.cli.sharding import SharedWork
    from wsss.cli.terminal import Terminal
    from wsss.errors import UsageError

    early = given.check()
    if onnx is not None:
        run, images = onnx, _only_images(run, images)
    elif images is None:
        raise UsageError("no images were named", f"wsss predict {run} IMAGES -o {output}")
    work = SharedWork.of(shard)
    with heavy_imports():
        import torch

        from wsss.data.dataset import format_of, open_data, open_unlabelled
        from wsss.data.findings import telling
        from wsss.data.records import Record
        from wsss.inference.predicting import predict_readable
        from wsss.inference.refiner_file import read_refiner
        from wsss.inference.settings import predict_words
        from wsss.labels.crf import require_crf
        from wsss.machine import prepare_device
        from wsss.models.checkpoint import file_hash, load_network
        from wsss.models.network import Network
        from wsss.models.onnx_network import OnnxNetwork
        from wsss.outputs.palettes import palette_named

    if early.predict.crf:
        require_crf()
    colours, chosen = palette_named(palette), prepare_device(work.on_its_device(early.run))
    fitted = None if refiner is None else read_refiner(refiner)
    if onnx is None and not (run / "run.json").is_file() and (images / "run.json").is_file():
        raise UsageError(
            f"{images} is a run and {run} is none: the run comes first", f"wsss predict {images} {run} -o OUT"
        )
    network: Network | OnnxNetwork
    if onnx is not None:
        if chosen.type != "cpu" and early.run.device != "auto":
            raise UsageError(f"--device {early.run.device}: ONNX files are run on the CPU", "--device cpu")
        chosen, path, network = torch.device("cpu"), onnx, OnnxNetwork(onnx)
        network.require_any_size()
        trained = network.config
    else:
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
        terminal.say(predict_words(settings, trained))
        counts = predict_readable(
            network,
            listed,
            output,
            settings,
            terminal,
            data=images,
            kind=kind,
            device=chosen,
            split=split,
            checkpoint_sha256=file_hash(path),
            overlays=overlays,
            palette=colours,
            overwrite=overwrite,
            shard=work.shard,
            fitted=fitted,
        )
        counts |= work.merged_labels(output, terminal)
    facts = {"output": str(output), **work.facts(), **counts}
    typer.echo(json.dumps(facts) if as_json else output)


def _only_images(first: Path, second: Path | None) -> Path:
    """The images, where a file takes the place of the run.

    Raises:
        UsageError: a run was named too.
    """
    from wsss.errors import UsageError

    if second is not None:
        what = f"{first} and {second} were named, but --onnx is in place of the run: it takes images alone"
        raise UsageError(what, f"wsss predict --onnx FILE {second} -o OUT")
    return first
