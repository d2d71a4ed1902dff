"""``wsss make-pseudo``: pseudo labels of tagged images, from their class maps."""

from __future__ import annotations

import json
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
    *("run", "output", "data.root", "split", "config", "assignments", *READING),
    *("maps.method", "maps.coupling", "maps.start_layer", "maps.scales", "maps.flip", "maps.tile", "labels.background"),
    *("data.saliency", "labels.pamr_stride", "labels.decoder", "labels.crf", "refiner"),
    *("save_scores", "overlays", "palette", "overwrite", "checkpoint", "shard"),
    *("run.device", "run.amp", "run.workers", "run.deterministic", "as_json"),
    split="data.train_split",
)
def make_pseudo(
    given: Given,
    run: Annotated[Path, typer.Argument(help="Run of train-cls or train-seg, or a checkpoint file.")],
    output: OutOption,
    save_scores: Annotated[bool, typer.Option("--save-scores", help="Also write small 8-bit class scores.")] = False,
    overlays: Annotated[
        int, typer.Option(min=0, help="Number of images, spread over the split, to draw.", metavar="N")
    ] = 0,
    palette: PaletteOption = "voc",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Also make again what exists.")] = False,
    checkpoint: CheckpointOption = "last",
    shard: ShardOption = None,
    refiner: RefinerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make pseudo labels from tags: class maps, PAMR, completion.

    Maps, labels and CRF follow the run's own config, unless -c, --set or a flag says otherwise; without any --scales,
    images are read at 1.4 times the side of the training crops.
    Images that have a label already are skipped. Prints the output folder on standard output.
    """
    from wsss.cli.sharding import SharedWork
    from wsss.cli.terminal import Terminal

    early = given.check()
    work = SharedWork.of(shard)
    with heavy_imports():
        from wsss.data.splits import open_to_label
        from wsss.inference.labeller import effective_labels
        from wsss.inference.labelling import Wanted, make_pseudo_labels
        from wsss.inference.refiner_file import read_refiner
        from wsss.inference.settings import map_words
        from wsss.labels.crf import require_crf
        from wsss.machine import prepare_device
        from wsss.models.checkpoint import file_hash, load_network
        from wsss.outputs.choices import use_words
        from wsss.outputs.palettes import palette_named

    if early.labels.crf:
        require_crf()
    colours, chosen = palette_named(palette), prepare_device(work.on_its_device(early.run))
    fitted = None if refiner is None else read_refiner(refiner)
    network, trained, path = load_network(run, checkpoint)
    settings = given.resolve_for(trained)
    if settings.labels.crf:
        require_crf("--no-crf")
    with Terminal() as terminal:
        terminal.say(map_words(settings, effective_labels(network, settings.labels), trained))
        tagged = open_to_label(settings, terminal, network.classes)
        terminal.say(use_words(settings.run, chosen, tagged.origin(), tagged.split, len(tagged)))
        counts = make_pseudo_labels(
            network,
            tagged,
            output,
            settings,
            terminal,
            device=chosen,
            checkpoint_sha256=file_hash(path),
            wanted=Wanted(scores=save_scores, overlays=overlays, palette=colours, overwrite=overwrite),
            shard=work.shard,
            fitted=fitted,
        )
        terminal.say(f"{counts['made']} pseudo labels made, {counts['skipped']} there already")
        if counts["foreground"] == 0:
            terminal.say("they hold no class: train longer, or try another --method or --background")
        counts |= work.merged_labels(output, terminal)
    facts = {"output": str(output), "split": tagged.split, **work.facts(), **counts}
    typer.echo(json.dumps(facts) if as_json else output)
