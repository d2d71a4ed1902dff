"""``wsss analyze``: what the blocks and heads of a network do, and from which block on its maps should be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, CheckpointOption, Given, JsonOption, configured

if TYPE_CHECKING:
    from rich.table import Table

    from wsss.analysis.summary import Analysis, Block


@configured(
    *("run", "data.root", "split", "output", "limit", "side", "config", "assignments", *READING),
    *("maps.method", "maps.coupling", "overwrite", "checkpoint"),
    *("run.device", "run.amp", "run.workers", "run.deterministic", "as_json"),
    split="data.train_split",
)
def analyze(
    given: Given,
    run: Annotated[Path, typer.Argument(help="Run of train-cls or train-seg, or a checkpoint file.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write; by default RUN/analysis.", metavar="OUT")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Images, taken evenly from the split; 0 takes all.", metavar="N")
    ] = 128,
    side: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images are resized to the area of such a square, pixels; by default the training's crops."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Measure again what is there.")] = False,
    checkpoint: CheckpointOption = "last",
    as_json: JsonOption = False,
) -> None:
    """Measure what blocks and heads do, and choose from which block on class maps are read.

    Writes analysis.json, heads.png and layers.yaml, which wsss make-pseudo -c takes. The choice needs no mask: it takes
    the maps that, blanked in the image, lower the class's logit most. Where there are masks, the best choice with them
    stands beside it as oracle. Images that are done are not measured again. Prints the folder on standard output.
    """
    from wsss.cli.sharding import refuse_ranks
    from wsss.cli.terminal import Terminal, console, remark
    from wsss.errors import UsageError

    refuse_ranks("analyze")
    if output is None and run.is_file():
        raise UsageError(f"{run} is a file: no folder was given", f"wsss analyze {run} --data DIR -o OUT")
    early, out = given.check(), output or run / "analysis"
    with heavy_imports():
        from wsss.analysis.analyse import analyse
        from wsss.analysis.report import LAYERS
        from wsss.data.splits import open_to_label
        from wsss.machine import prepare_device
        from wsss.models.checkpoint import file_hash, load_network
        from wsss.outputs.choices import use_words

    chosen = prepare_device(early.run)
    network, trained, path = load_network(run, checkpoint)
    settings = given.resolve_for(trained)
    with Terminal() as terminal:
        tagged = open_to_label(settings, terminal, network.classes)
        terminal.say(use_words(settings.run, chosen, tagged.origin(), tagged.split, len(tagged)))
        analysis = analyse(
            network,
            tagged,
            out,
            settings,
            terminal,
            device=chosen,
            checkpoint_sha256=file_hash(path),
            side=side or trained.augment.size,
            limit=limit,
            overwrite=overwrite,
        )
    console.print(_table(analysis))
    remark(analysis.words())
    if analysis.oracle_words():
        remark(analysis.oracle_words(), "dim")
    remark(f"wsss make-pseudo {run} --data {settings.data.root} -c {out / LAYERS} -o OUT", "dim")
    typer.echo(json.dumps({"output": str(out), **analysis.to_json()}) if as_json else out)


def _table(analysis: Analysis) -> Table:
    """A row a block: means over its heads, its local heads, and the maps from it on."""
    from rich.table import Table

    with_masks = analysis.masks > 0
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("block", "distance", "queries", "heads", "local heads", "gain", "deletion\nfrom here"):
        table.add_column(heading, justify="left" if heading == "local heads" else "right")
    for heading in ("best head\non objects", "oracle %\nfrom here") if with_masks else ():
        table.add_column(heading, justify="right")
    for block in analysis.blocks:
        chosen = block.block == analysis.start_layer
        table.add_row(*_cells(analysis, block), style="bold" if chosen else "")
    return table


def _cells(analysis: Analysis, block: Block) -> list[str]:
    heads = analysis.of_block(block.block)

    def mean(name: str) -> str:
        return f"{sum(getattr(head, name) for head in heads) / len(heads):.2f}"

    local = [f"{head.block}.{head.head} {head.offset} {100 * head.share:.0f}%" for head in heads if head.offset != "-"]
    cells = [str(block.block), mean("distance"), mean("query_spread"), mean("head_spread"), ", ".join(local)]
    cells += [f"{block.gain:.2f}", f"{block.deletion:.2f}"]
    if block.oracle_miou is not None:
        aligned = [head.alignment for head in heads if head.alignment is not None]
        cells += [f"{max(aligned):.2f}" if aligned else "-", f"{100 * block.oracle_miou:.1f}"]
    return cells
