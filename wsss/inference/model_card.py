"""The model card beside an exported network: what it is, what it learnt from, how good it is, who owns its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm

import wsss
from wsss.config import Config
from wsss.errors import DataError
from wsss.inference.compare import Comparison
from wsss.inference.export import Exported
from wsss.models.checkpoint import file_hash, find_checkpoint, network_from, read_checkpoint
from wsss.models.network import Network
from wsss.outputs.run import FACTS, read_facts

METRICS = "metrics.jsonl"
"""File of a run with a line for each validation (`wsss.training.metrics`)."""


def model_card(
    network: Network,
    config: Config,
    checkpoint: Path,
    exported: Sequence[Exported],
    comparisons: Mapping[Path, Comparison],
) -> str:
    """The card in Markdown.

    Args:
        network: that was exported.
        config: of its training.
        checkpoint: the file that it was read from; what lies beside it says more.
        exported: the files that were written.
        comparisons: of a file with torch, on photos.
    """
    run = checkpoint.parent
    task = "Segmentation" if network.decoder is not None else "Classification"
    numbered = [f"| {index} | {name} |" for index, name in enumerate(("background", *network.classes))]
    lines = [
        f"# {task} of {', '.join(network.classes)}",
        "",
        f"{config.model.backbone} with a DPT decoder, trained by wsss {wsss.__version__}."
        if network.decoder is not None
        else f"{config.model.backbone}, trained by wsss {wsss.__version__} to tell which classes an image holds.",
        "",
        "| file | what |",
        "|---|---|",
        *(f"| {one.path.name} | {one.words().partition(': ')[2]} |" for one in exported),
        "",
        "## Classes",
        "",
        "| index | class |",
        "|---|---|",
        *numbered,
        "",
        "## Learnt from",
        "",
        *(f"- {line}" for line in _origins(network, run)),
        "",
        "## Figures",
        "",
        *(f"- {line}" for line in _figures(run, comparisons)),
        "",
        "## Licence of the weights",
        "",
        licence_of(checkpoint),
        "",
        "## Which checkpoint",
        "",
        f"`{checkpoint.name}`, SHA-256 {file_hash(checkpoint)}",
        "",
    ]
    return "\n".join(lines)


def licence_of(checkpoint: Path) -> str:
    """Whose weights a network began with, and their licence as far as timm says; one sentence or two."""
    content = read_checkpoint(checkpoint)
    _, config = network_from(content, checkpoint)
    own = "What the training added belongs to whoever trained it, as far as the licence of the photos allows."
    task = content.get("task")
    init = task.get("init") if isinstance(task, dict) else None
    if init:
        try:
            return licence_of(find_checkpoint(Path(init)))
        except DataError:
            return f"Unknown: the run that it began with ({Path(init).name}) is no longer there. {own}"
    name, weights = config.model.backbone, config.model.weights
    if checkpoint.suffix == ".safetensors":
        return f"Unknown: the file does not say with which weights its training began. {own}"
    if weights == "none":
        return f"The training began with random weights, so no licence of other weights applies. {own}"
    said = _timm_licence(name)
    if weights == "pretrained":
        return f"The training began with timm's weights of {name}; timm gives their licence as: {said}. {own}"
    return (
        f"The training began with the weights of {Path(weights).name}, whose licence wsss does not know."
        f" If they are timm's weights of {name}, timm gives their licence as: {said}. {own}"
    )


def _timm_licence(name: str) -> str:
    found = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return str(getattr(found, "license", None) or "unknown")


def _origins(network: Network, run: Path) -> list[str]:
    """Supervision and data, as far as the run folder tells."""
    lines = [f"supervision: {', '.join(network.supervision) or 'unknown'}"]
    if not (run / FACTS).is_file():
        return [*lines, "data: unknown, the run folder is not there"]
    facts = read_facts(run)
    choices = facts.get("choices") or {}
    data = Path(str(choices.get("data", "?"))).name
    lines.append(f"data: {data} (format {choices.get('format', 'unknown')}), tags of {choices.get('tags', 'unknown')}")
    lines.append(f"split {facts.get('split')}: {facts.get('images')} images")
    return lines


def _figures(run: Path, comparisons: Mapping[Path, Comparison]) -> list[str]:
    """The last validation of the run, and the comparisons."""
    rows = []
    if (run / METRICS).is_file():
        for line in (run / METRICS).read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and "split" in row:
                rows.append(row)
    lines = [_validation(rows[-1])] if rows else ["never validated in training"]
    return lines + [f"{path.name}: {one.words()}" for path, one in comparisons.items()]


def _validation(row: Mapping[str, Any]) -> str:
    figures = [
        f"{key} {value:.4f}"
        for key, value in row.items()
        if isinstance(value, float) and key not in ("epoch", "seconds", "lr")
    ]
    return f"validation on {row['split']} at step {row.get('step')}: {', '.join(figures)}"
