"""What a command chose by itself: said in one line at its start, and kept in ``run.json`` or in the manifest.

These are facts of the machine and of the data folder, not settings: with "auto" they may be others elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from wsss.config import RunSection
from wsss.data.records import TaggedSet, counted
from wsss.machine import num_workers, number_type
from wsss.reporting import first_few

Choices = dict[str, Any]
"""Plain values by name."""


def machine_choices(run: RunSection, device: torch.device) -> Choices:
    """The device, threads, loader processes and number type of a command."""
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return {
        "device": f"{device}{name}",
        "threads": torch.get_num_threads(),
        "workers": num_workers(run),
        "amp": number_type(run, device),
    }


def data_choices(tagged: TaggedSet) -> Choices:
    """The reader of a data folder, the file or folder that its tags come from, the split and its number of images."""
    return {
        "data": str(tagged.root.absolute()),
        "format": tagged.format,
        "tags": tagged.tags_source,
        "split": tagged.split,
        "images": len(tagged),
    }


def training_choices(
    run: RunSection,
    device: torch.device,
    train: TaggedSet,
    val: TaggedSet | None,
    *,
    scored: int,
    others: Sequence[str] = (),
) -> Choices:
    """All choices of a training.

    Args:
        run: of its config.
        device: where it computes.
        train: the training split.
        val: the validation split, or None.
        scored: number of its images that are scored; a segmentation scores those that have a mask.
        others: splits of the data set that are not trained on, which one could validate on; needed where ``val`` is
            None.
    """
    reason = None
    if val is None:
        reason = _why_no_split(train.split, others)
    elif scored == 0:
        reason = f"split {val.split} has no masks"
    return {
        **machine_choices(run, device),
        **data_choices(train),
        "val_split": None if val is None else val.split,
        "val_images": scored,
        **({} if val is None or scored in (0, len(val)) else {"val_without_mask": len(val) - scored}),
        "no_validation": reason,
    }


def _why_no_split(trained_on: str, others: Sequence[str]) -> str:
    """Why there is no validation split, and the option that takes one."""
    if trained_on == "val":
        return "val is trained on"
    if not others:
        return "there is no other split"
    if len(others) == 1:
        return f"no split is called val; there is {others[0]}: --val-split {others[0]}"
    return f"no split is called val; there are {first_few(others)}: --val-split NAME"


def machine_words(choices: Mapping[str, Any]) -> str:
    """``machine_choices`` in words: "cpu, 2 threads, 1 loader process, float32"."""
    threads, workers = counted(choices["threads"], "thread"), choices["workers"]
    loaders = counted(workers, "loader process", "loader processes") if workers else "no loader process"
    return f"{choices['device']}, {threads}, {loaders}, {'float32' if choices['amp'] == 'none' else choices['amp']}"


def training_words(choices: Mapping[str, Any], train: TaggedSet) -> str:
    """``training_choices`` in one line."""
    reason, images = choices["no_validation"], counted(choices["val_images"], "image")
    unscored = choices.get("val_without_mask", 0)
    images += f" with a mask, {unscored} without" if unscored else ""
    validation = f"no validation: {reason}" if reason else f"validates on {choices['val_split']} ({images})"
    trains = f"trains on {train.split} ({counted(len(train), 'image')})"
    return f"{machine_words(choices)}; {train.origin()}: {trains}, {validation}"


def use_words(run: RunSection, device: torch.device, origin: str, split: str | None, images: int) -> str:
    """The choices of a command that uses a network, in one line.

    Args:
        run: of its config.
        device: where it computes.
        origin: where its images are (``TaggedSet.origin``).
        split: their split, or None.
        images: their number.
    """
    read = f"{f'split {split}, ' if split is not None else ''}{counted(images, 'image')}"
    return f"{machine_words(machine_choices(run, device))}; {origin}: {read}"
