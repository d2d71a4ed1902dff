"""``wsss export``: take a trained network elsewhere: ONNX, torch.export or safetensors, each with a model card."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, CheckpointOption, Given, JsonOption, configured


@configured(
    *("run", "onnx", "int8", "sizes", "pt2", "safetensors", "data.root", "split", *READING),
    *("overwrite", "checkpoint", "run.workers", "as_json"),
)
def export(
    given: Given,
    run: Annotated[Path, typer.Argument(help="Run of train-seg, or a checkpoint file.")],
    onnx: Annotated[Path | None, typer.Option(help="ONNX file to write (wsss[onnx]).", metavar="FILE")] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit weights in the ONNX file; --data measures what that costs.")
    ] = False,
    sizes: Annotated[
        str | None,
        typer.Option(help="Rows x columns of the images, e.g. 224x224,320x448: a file each. Any size if not given."),
    ] = None,
    pt2: Annotated[
        Path | None, typer.Option(help="File of torch.export to write, for one size.", metavar="FILE")
    ] = None,
    safetensors: Annotated[
        Path | None, typer.Option(help="Weights to write, to be used in place of a run.", metavar="FILE")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of --data on which ONNX and torch are compared.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    checkpoint: CheckpointOption = "last",
    as_json: JsonOption = False,
) -> None:
    """Export a network, with a model card (FILE.md) beside each file.

    An exported model takes photos (B, H, W, 3) of 8 bits and gives probabilities and labels. It is compared with torch
    before its file appears. With --data ONNX and torch segment a split too: the mIoU of both where there are masks.
    Prints the files that it wrote on standard output.
    """
    from wsss.cli.terminal import Terminal
    from wsss.errors import UsageError
    from wsss.files import write_whole

    config = given.resolve()
    listed = parse_sizes(sizes)
    targets = [path for path in (onnx, pt2, safetensors) if path is not None]
    if not targets:
        raise UsageError("nothing to export was named", f"wsss export {run} --onnx model.onnx")
    if int8 and onnx is None:
        raise UsageError("--int8 is a kind of ONNX file", f"wsss export {run} --onnx model.onnx --int8")
    if config.data.root is not None and (onnx is None or listed):
        why = "--data compares ONNX files for any size with torch"
        raise UsageError(why, f"wsss export {run} --onnx model.onnx --data {config.data.root}")
    for path in {*targets, *(path.with_suffix(".md") for path in targets)}:
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists", "choose another name, or add --overwrite")

    with heavy_imports():
        import torch

        from wsss.data.dataset import open_data
        from wsss.data.findings import telling
        from wsss.inference.compare import Comparison, compare_on
        from wsss.inference.export import Exported, export_onnx, export_pt2, export_safetensors, require_onnx
        from wsss.inference.model_card import licence_of, model_card
        from wsss.machine import limit_threads
        from wsss.models.checkpoint import file_hash, load_network
        from wsss.models.onnx_network import OnnxNetwork

    if onnx is not None:
        require_onnx()
    limit_threads()
    network, trained, path = load_network(run, checkpoint)
    rows, columns = network.backbone.stride
    small = next((size for size in listed if size[0] < rows or size[1] < columns), None)
    if small is not None:
        raise UsageError(f"--sizes {small[0]}x{small[1]}: less than a patch of {rows} x {columns}", "--sizes 224x224")
    network.requires_grad_(False)
    if onnx is not None or pt2 is not None:
        network.require_decoder()
    written: list[Exported] = []
    compared: dict[Path, Comparison] = {}
    with Terminal() as terminal, torch.inference_mode(False):
        tagged = None
        if config.data.root is not None:
            note = telling(terminal.say)
            tagged = open_data(config.data.root, split=split, reading=config.data, need_tags=False, note=note)
            if tagged.classes != network.classes:
                what = f"{tagged.root} has the classes {', '.join(tagged.classes)}, {run} {', '.join(network.classes)}"
                raise UsageError(what, f"--classes {','.join(network.classes)}")
        if onnx is not None:
            every: list[tuple[int, int] | None] = [*listed] or [None]
            for size in every:
                terminal.say(f"exporting to {sized(onnx, size, listed)}; torch takes a quarter of a minute or more")
                facts = {"checkpoint_sha256": file_hash(path), "licence": licence_of(path)}
                target = sized(onnx, size, listed)
                written.append(export_onnx(network, trained, target, size=size, int8=int8, facts=facts))
                terminal.say(written[-1].words())
        if pt2 is not None:
            side = trained.augment.size
            for size in listed or [(-(-side // rows) * rows, -(-side // columns) * columns)]:
                written.append(export_pt2(network, sized(pt2, size, listed), size))
                terminal.say(written[-1].words())
        if safetensors is not None:
            written.append(export_safetensors(network, trained, safetensors))
            terminal.say(written[-1].words())
        if tagged is not None and onnx is not None:
            used = trained.model_copy(update={"run": config.run})
            compared[onnx] = compare_on(network, OnnxNetwork(onnx), tagged, used, terminal)
            terminal.say(compared[onnx].words())
        elif int8:
            terminal.say("what 8 bits cost in mIoU was not measured: --data DIR --split val measures it")
        for card in {target.with_suffix(".md") for target in targets}:
            own = [one for one in written if _belongs(one.path, card)]
            write_whole(card, model_card(network, trained, path, own, compared))
    if as_json:
        plain = [{**asdict(one), "path": str(one.path)} for one in written]
        both = {str(one): asdict(figures) for one, figures in compared.items()}
        typer.echo(json.dumps({"files": plain, "compared": both}))
    else:
        typer.echo("\n".join(str(one.path) for one in written))


def parse_sizes(text: str | None) -> list[tuple[int, int]]:
    """(rows, columns) of each "224x320" in a comma-separated list; empty where there is none.

    Raises:
        UsageError: it is no such list.
    """
    from wsss.errors import UsageError

    found = []
    for word in (text or "").split(",") if text is not None else ():
        rows, _, columns = word.strip().partition("x")
        if not (rows.isdecimal() and columns.isdecimal() and int(rows) and int(columns)):
            raise UsageError(f"--sizes {text}: '{word}' is no ROWSxCOLUMNS", "--sizes 224x224,320x448")
        found.append((int(rows), int(columns)))
    return found


def sized(path: Path, size: tuple[int, int] | None, listed: list[tuple[int, int]]) -> Path:
    """The file of one of several sizes: model-224x320.onnx."""
    if size is None or len(listed) < 2:
        return path
    return path.with_name(f"{path.stem}-{size[0]}x{size[1]}{path.suffix}")


def _belongs(path: Path, card: Path) -> bool:
    """Whether a card describes a file: they lie side by side and share the first part of their names."""
    return path.parent == card.parent and path.stem.startswith(card.stem)
