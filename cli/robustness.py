"""``wsss robustness``: what survives of tags, class maps and masks when images are perturbed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, CheckpointOption, Given, JsonOption, configured

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from wsss.robustness.table import Table

Suite = Literal["corruption", "occlusion", "shuffle", "patch", "adversarial"]


@configured(
    *("run", "data.root", "suite", "split", "output", "limit", "side", "temperature", "threshold", "steps", "against"),
    *("config", "assignments", *READING, "maps.method", "overwrite", "checkpoint"),
    *("run.device", "run.amp", "run.workers", "run.deterministic", "as_json"),
    split="data.val_split",
)
def robustness(
    given: Given,
    run: Annotated[Path, typer.Argument(help="Run of train-cls or train-seg, or a checkpoint file.")],
    suite: Annotated[Suite, typer.Option(help="What is done to the images.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write; by default RUN/robustness/SUITE.", metavar="OUT"),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Images, taken evenly from the split; 0 takes all.", metavar="N")
    ] = 100,
    side: Annotated[
        int | None,
        typer.Option(
            min=1, help="Images are resized to the area of such a square, pixels; by default the training's crops."
        ),
    ] = None,
    temperature: Annotated[
        str, typer.Option(help="Also read with attention at these temperatures, above 1 flatter.", metavar="T,...")
    ] = "1",
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Class score of the seeds; by default that of the run's background rule."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of the attacks; by default 20 of patch, 10 of adversarial.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another run: also the mean corruption error relative to it.", metavar="RUN2")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Measure again what is there.")] = False,
    checkpoint: CheckpointOption = "last",
    as_json: JsonOption = False,
) -> None:
    """Measure tags, class maps and masks on perturbed images, and how much of their clean scores is kept.

    corruption: noise, blur, weather and compression at three severities, and views without texture. occlusion: hidden
    patches, at random or in the order of the image's own map. shuffle: cells that are mixed up. patch: one cell is
    corrupted, replaced by noise or attacked. adversarial: small changes of all pixels, made against the network.
    Images are read at one scale, without flip and refinement. Writes robustness.json and perturbations.png, a sheet of
    pictures; images that are done are not measured again. Prints the folder on standard output.
    """
    from wsss.cli.sharding import refuse_ranks
    from wsss.cli.terminal import Terminal, console, remark
    from wsss.errors import UsageError

    refuse_ranks("robustness")
    if output is None and run.is_file():
        raise UsageError(f"{run} is a file: no folder was given", f"wsss robustness {run} --suite {suite} -o OUT")
    temperatures = _numbers(temperature)
    early, out = given.check(), output or run / "robustness" / suite
    with heavy_imports():
        from wsss.data.splits import open_to_score
        from wsss.machine import prepare_device
        from wsss.models.checkpoint import file_hash, load_network
        from wsss.outputs.choices import use_words
        from wsss.robustness.measure import Plan, measure_suite, to_json
        from wsss.robustness.table import TARGETS, corruption_error

    chosen = prepare_device(early.run)
    tables = []
    with Terminal() as terminal:
        for one, folder in ((run, out), (against, out / "against")):
            if one is None:
                continue
            network, trained, path = load_network(one, checkpoint)
            settings = given.resolve_for(trained)
            tagged = open_to_score(settings, terminal, network.classes)
            terminal.say(use_words(settings.run, chosen, tagged.origin(), tagged.split, len(tagged)))
            plan = Plan(
                suite=suite,
                side=side or trained.augment.size,
                limit=limit,
                temperatures=temperatures,
                threshold=threshold,
                steps=steps,
            )
            tables.append(
                measure_suite(
                    network,
                    tagged,
                    folder,
                    settings,
                    plan,
                    terminal,
                    device=chosen,
                    checkpoint_sha256=file_hash(path),
                    overwrite=overwrite,
                )
            )
    table = tables[0]
    console.print(_rich(table))
    kept = {target: table.kept(target) for target in TARGETS}
    words = ", ".join(f"{target} {100 * share:.1f}%" for target, share in kept.items() if share is not None)
    remark(f"kept on average of the clean scores: {words}; {table.images} images, {table.scored} with masks")
    remark(f"seeds at the class score {table.threshold:g}; pictures: {out / 'perturbations.png'}", "dim")
    facts = {"output": str(out), "suite": suite, "kept": kept, **to_json(table)}
    if against is not None:
        facts["mce"] = {target: corruption_error(table, tables[1], target) for target in TARGETS}
        known = ", ".join(f"{target} {value:.3f}" for target, value in facts["mce"].items() if value is not None)
        remark(f"mean corruption error relative to {against}: {known}; below 1 is better")
    typer.echo(json.dumps(facts) if as_json else out)


def _numbers(text: str) -> tuple[float, ...]:
    """The numbers of ``--temperature``."""
    from wsss.errors import UsageError

    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < float("inf") for number in numbers):
        raise UsageError(f"--temperature {text}: expected numbers above 0", "--temperature 1,1.5,2")
    return numbers


def _rich(table: Table) -> RichTable:
    """A row a condition; columns without any figure are left out."""
    from rich.table import Table as RichTable

    columns = {
        "perturbation": [f"{one.kind} {one.level}".strip() for one in table.scores],
        "T": [f"{one.temperature:g} {one.threat}".strip() for one in table.scores],
    }
    for target in ("tags", "maps", "masks"):
        columns[f"{target}\n%"] = [_percent(getattr(one, target)) for one in table.scores]
        columns[f"{target}\nkept %"] = [_percent(one.retention[target]) for one in table.scores]
    columns["maps\ninside %"] = [_percent(one.inside) for one in table.scores]
    columns["maps\noutside %"] = [_percent(one.outside) for one in table.scores]
    columns["capture\nlast block"] = [f"{one.capture[-1]:.2f}" if one.capture else "" for one in table.scores]
    if not any(one.temperature != 1 for one in table.scores):
        del columns["T"]
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    drawn = RichTable(show_edge=False, pad_edge=False)
    for heading in shown:
        drawn.add_column(heading, justify="left" if heading in ("perturbation", "T") else "right")
    for cells in zip(*shown.values(), strict=True):
        drawn.add_row(*cells)
    return drawn


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
