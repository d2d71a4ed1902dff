"""``wsss fit-refiner``: learn the numbers of PAMR from label maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, CheckpointOption, Given, JsonOption, configured


@configured(
    *("run", "data.root", "split", "labels", "oracle", "output", "limit", "config", "assignments", *READING),
    *("maps.method", "maps.coupling", "maps.start_layer", "maps.scales", "maps.flip"),
    *("overwrite", "checkpoint", "run.device", "run.amp", "run.seed", "run.workers", "run.deterministic", "as_json"),
    split="data.train_split",
)
def fit_refiner(
    given: Given,
    run: Annotated[Path, typer.Argument(help="Run of train-cls or train-seg whose class maps are refined.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write, .safetensors.", metavar="FILE")],
    labels: Annotated[
        Path | None,
        typer.Option(help="Label maps of the images, best those that make-pseudo made of a train-seg run."),
    ] = None,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Learn from the true masks of DIR instead, which the file says.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=0, help="Images, taken evenly from the split; 0 takes all.", metavar="N")
    ] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    checkpoint: CheckpointOption = "last",
    as_json: JsonOption = False,
) -> None:
    """Learn how PAMR refines class maps, from label maps of the same images.

    PAMR's constants become 32 numbers, which start as PAMR: how each ring of neighbours looks at colour and how much it
    counts, and how far each step moves. make-pseudo and predict take the file with --refiner. A fifth of the images is
    held out and decides when to stop. Takes minutes; when it is stopped, it begins anew. Prints the file on standard
    output.
    """
    from wsss.cli.terminal import Terminal
    from wsss.errors import UsageError

    early = given.check()
    if oracle == (labels is not None):
        what = "--labels and --oracle were both given" if oracle else "no label maps were given to learn from"
        raise UsageError(what, f"wsss fit-refiner {run} --data DIR --labels LABELS -o {output}")
    if output.is_dir() or (output.exists() and not overwrite):
        raise UsageError(f"{output} is there already", "choose another -o FILE, or --overwrite to replace a file")
    with heavy_imports():
        from wsss.data.splits import open_to_label
        from wsss.inference.refiner_file import write_refiner
        from wsss.machine import be_deterministic, prepare_device
        from wsss.models.checkpoint import file_hash, load_network
        from wsss.outputs.choices import use_words
        from wsss.training import refiner

    chosen = prepare_device(early.run)
    network, trained, path = load_network(run, checkpoint)
    settings = given.resolve_for(trained)
    be_deterministic(settings.run)
    with Terminal() as terminal:
        tagged = open_to_label(settings, terminal, network.classes)
        terminal.say(use_words(settings.run, chosen, tagged.origin(), tagged.split, len(tagged)))
        fit, about = refiner.fit_refiner(network, tagged, settings, terminal, device=chosen, labels=labels, limit=limit)
        about = {"checkpoint_sha256": file_hash(path), **about}
        write_refiner(output, fit.refiner, about)
        terminal.say(fit.words())
    typer.echo(json.dumps({"output": str(output), **about}) if as_json else output)
