"""The ceiling of a training from tags: the same network on the true masks of the same images, in as many steps.

This is pixel supervision, asked for by its name alone; the supervision of such a run says so.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wsss.config import Config
from wsss.data.lessons import epochs_of
from wsss.data.records import TaggedSet, counted
from wsss.data.splits import open_training
from wsss.data.truth import read_truth
from wsss.errors import DataError
from wsss.inference.score import score_split
from wsss.machine import prepare_device
from wsss.models.checkpoint import find_checkpoint, load_network, network_from, part_of, read_checkpoint
from wsss.models.network import Network
from wsss.outputs.folder import Source, held_folder
from wsss.outputs.provenance import Supervision
from wsss.reporting import Reporter, Silent

TRUE_MASKS: Supervision = ("true masks",)


def ceiling_config(config: Config, images: int) -> Config:
    """The same settings with one round, in which all steps of all rounds are taken, and without saliency maps."""
    section = config.segment
    epochs = epochs_of(images, section) * section.rounds
    update = {
        "segment": section.model_copy(update={"rounds": 1, "epochs": epochs}),
        "data": config.data.model_copy(update={"saliency": None}),
    }
    return config.model_copy(update=update)


def with_masks(train: TaggedSet, reporter: Reporter) -> TaggedSet:
    """The images of a split that have masks; how many have none is said.

    Raises:
        DataError: no image has one.
    """
    known = np.array([train.has_truth(record) for record in train.records], np.bool_)
    if not known.any():
        what = f"{train.root}: no image of split '{train.split}' has a mask, so there is no ceiling to train"
        raise DataError(what, f"wsss data info {train.root}  # says which splits have masks")
    if not known.all():
        reporter.say(f"{counted(int((~known).sum()), 'image')} of {len(train)} without a mask left out")
    return replace(train, records=train.columns.take(np.flatnonzero(known)))


def write_true_masks(train: TaggedSet, out: Path, config: Config, reporter: Reporter) -> None:
    """Write the masks of all images as label maps that a training is given; those that are there stay.

    Raises:
        DataError: a mask cannot be read or holds other indices.
        Interrupted: a signal arrived; what was written is complete.
    """
    settings = {"kind": "truth", "classes": list(train.classes), "supervision": list(TRUE_MASKS)}
    sources = {record.name: Source.of(record) for record in train.records}
    with held_folder(out, settings, config, reporter, overwrite=False) as folder:
        todo = folder.begin([*sources.values()], reporter, overwrite=False)
        reporter.begin("true masks", len(sources), len(sources) - len(todo))
        for record in train.records:
            if record.name in todo:
                folder.write(sources[record.name], read_truth(train, record))
                reporter.advance()
                folder.stop.leave_if_asked("while the masks were written", "run the same command again")
        folder.complete([*sources.values()])


def settings_of(run: Path, given: Config, keys: Collection[str], init: Path | None) -> tuple[Config, Path | None]:
    """The settings of a run of ``train-seg`` and the run it began from.

    Args:
        run: its folder.
        given: a config, of which some keys are taken instead of those of the run.
        keys: these keys, of the sections data and run ("data.root", "run.device").
        init: the run to begin from; None takes that of the run.

    Raises:
        DataError: the run it began from is gone.
    """
    path = find_checkpoint(run)
    content = read_checkpoint(path)
    _, trained = network_from(content, path)
    began = part_of(content, "task", run).get("init")
    if init is None and began is not None:
        init = Path(began)
        if not init.is_dir():
            raise DataError(f"{init}: no such run; {run} began from it", f"--init RUN  # where {init.name} lies now")
    update = {}
    for name in ("data", "run"):
        fields = [key.partition(".")[2] for key in keys if key.startswith(f"{name}.")]
        changed = {field: getattr(getattr(given, name), field) for field in fields}
        update[name] = getattr(trained, name).model_copy(update=changed)
    return trained.model_copy(update=update), init


def score_both(network: Network, run: Path, of: Path | None, reporter: Reporter) -> dict[str, Any]:
    """Score the ceiling and the run whose ceiling it is on the validation split, at one scale; says both.

    Returns:
        "run", "split" and "ceiling", its mIoU in [0, 1]; with ``of`` also "of", "mean_iou" and "ratio". The figures
        are None where there is no validation split with masks.
    """
    _, config, _ = load_network(run)
    _, val = open_training(config, Silent(), network.classes)
    if val is None or not val.has_masks():
        reporter.say("no validation split with masks: the ceiling is trained, and not scored")
        return {"run": str(run), "split": None, "ceiling": None}
    device = prepare_device(config.run)
    best = score_split(network.to(device).eval(), val, config, device).mean_iou()
    found: dict[str, Any] = {"run": str(run), "split": val.split, "ceiling": best}
    said = f"{val.split}: mIoU {100 * best:.1f} from true masks"
    if of is not None:
        other, trained, _ = load_network(of)
        reached = score_split(other.to(device), val, trained, device).mean_iou()
        found |= {"of": str(of), "mean_iou": reached, "ratio": reached / best}
        said += f", {100 * reached:.1f} of {of}: {100 * reached / best:.1f}% of its ceiling"
    reporter.say(f"{said} (one scale, no flip)")
    return found
