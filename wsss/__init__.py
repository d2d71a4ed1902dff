"""Weakly supervised segmentation: pixel masks from image-level tags, by GETAM.

The names below are the Python interface; each is imported when it is first used, so ``import wsss`` imports no torch.

- ``Segmenter.load(run).predict(image)``: a `Prediction` of an image without tags.
- ``Labeller.load(run).label(image, tags)``: the pseudo label of an image whose tags are known.
- ``open_dataset(path)``: the classes, splits, records and masks of a data folder.
- ``resolve_config(preset_or_file, ("key=value", ...), {"key": value})``: a config, as the command line makes it.
- ``train_classifier(config, run)`` and ``train_segmenter(config, run)``: the trainings.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsss.config import resolve as resolve_config
    from wsss.data.dataset import open_dataset
    from wsss.inference.labeller import Labeller
    from wsss.inference.segmenter import Prediction, Segmenter
    from wsss.training.start import train_classifier, train_segmenter

__version__ = "0.1.0"

__all__ = [
    "Labeller",
    "Prediction",
    "Segmenter",
    "__version__",
    "open_dataset",
    "resolve_config",
    "train_classifier",
    "train_segmenter",
]

_PLACES = {
    "Labeller": ("wsss.inference.labeller", "Labeller"),
    "Prediction": ("wsss.inference.segmenter", "Prediction"),
    "Segmenter": ("wsss.inference.segmenter", "Segmenter"),
    "open_dataset": ("wsss.data.dataset", "open_dataset"),
    "resolve_config": ("wsss.config", "resolve"),
    "train_classifier": ("wsss.training.start", "train_classifier"),
    "train_segmenter": ("wsss.training.start", "train_segmenter"),
}
"""Module and name of what is imported when it is first used."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'wsss' has no attribute {name!r}")
    module, there = _PLACES[name]
    value = getattr(import_module(module), there)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
