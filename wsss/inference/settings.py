"""Settings of inference: those that a run brings along, and those that depend on others.

A run remembers how it is to be used. The sections ``OF_THE_RUN`` of the config in its checkpoint hold for `wsss
predict`, `wsss make-pseudo`, ``Segmenter.load`` and ``Labeller.load``, unless a file, ``--set`` or a flag names a key.
The other sections do not come from the run:

- data: the images at hand are not those of the training. ``data.saliency`` is extra supervision, so it is used where
  it is named and nowhere else.
- run: device, loader processes, number type and batches belong to the machine at hand. A run of a GPU in bf16 is used
  on a CPU in float32 (``--amp bf16`` says otherwise; a manifest records it).
- model: always the run's; its tensors fit no other.
- augment, classify, segment: of trainings alone; the side of the crops decides scales that are None.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch

from wsss.config import Config, CrfSection, LabelsSection, Optimisation, RunSection, Source, resolve
from wsss.reporting import first_few

OF_THE_RUN = ("maps", "labels", "predict", "crf")
"""Sections of a config that a run brings along."""

EARLY_SCALES = (224,)
"""Value of ``maps.scales`` and ``predict.scales`` in a run of version 0.1.0 for which no scales were given."""

ZOOM = 10 / 7
"""Side at which whole images are read, as a factor of the side of the training crops: 320 pixels for 224.

Crops are enlarged parts of an image, so they show objects larger than the whole image at the same side does (Touvron
et al., "Fixing the train-test resolution discrepancy", 2019)."""

CPU_BATCH_PIXELS, OTHER_BATCH_PIXELS = 2**20, 2**23
"""Default of `batch_pixels`: about 20 images of 224 x 224 pixels on a CPU, eight times as many on other devices."""


def for_run(config: Config, trained: Config) -> Config:
    """A config for using a trained network.

    Args:
        config: the settings of the use; keeps all but the model section and scales that are None.
        trained: the config of the training.

    Returns:
        The config with the model section of the training and, where they were None, the scales that suit its crops.
    """
    crops = config.model_copy(update={"augment": trained.augment})
    maps = config.maps.model_copy(update={"scales": map_scales(crops)})
    predict = config.predict.model_copy(update={"scales": predict_scales(crops)})
    return config.model_copy(update={"model": trained.model, "maps": maps, "predict": predict})


def own_settings(trained: Config) -> dict[str, dict[str, Any]]:
    """What a run says of its use: the keys of ``OF_THE_RUN`` and the range of 16-bit images, plain.

    Version 0.1.0 wrote its default scales into checkpoints and yet took those that suit the crops, so they are None
    here. Its configs have no crf section.

    Args:
        trained: the config in the checkpoint.
    """
    plain: dict[str, dict[str, Any]] = {name: getattr(trained, name).model_dump() for name in OF_THE_RUN}
    if trained.data.levels != "auto":
        plain["data"] = {"levels": trained.data.levels}
    if {*Config.model_fields} - trained.model_fields_set == {"crf"}:
        for name in ("maps", "predict"):
            if plain[name]["scales"] == EARLY_SCALES:
                plain[name]["scales"] = None
    return plain


def resolve_for(
    trained: Config,
    source: Source = None,
    assignments: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = warnings.warn,
) -> Config:
    """The config for using a trained network: the run's own settings, then files, assignments and flags over them.

    Args:
        trained: the config in the checkpoint.
        source: see ``wsss.config.resolve``, as for the arguments after it.
        assignments: ``key=value`` each.
        flags: dotted key -> value.
        say: called with remarks.

    Raises:
        UsageError: every unknown key and bad value, together.
    """
    config = resolve(source, assignments, flags, say, base=own_settings(trained))
    remark_on_model(config, trained, say, but=("drop_path",))
    return for_run(config, trained)


def remark_on_model(config: Config, trained: Config, say: Callable[[str], None], *, but: Collection[str] = ()) -> None:
    """Say which keys of the model section were given and have no effect, since the network comes from a run.

    Args:
        config: as it was given.
        trained: the config in the checkpoint.
        say: called with the remark.
        but: keys of the section that are not looked at; ``weights`` never is, since these are initial ones.
    """
    given = sorted(config.model.model_fields_set - {"weights", *but})
    other = [f"model.{key}" for key in given if getattr(config.model, key) != getattr(trained.model, key)]
    if other:
        say(f"{first_few(other)}: not used, the network is that of the run ({trained.model.backbone})")


def map_words(config: Config, labels: LabelsSection, trained: Config) -> str:
    """How pseudo labels are made, in one line, and whether the settings are the run's.

    Args:
        config: of the use.
        labels: the settings as they take effect (``wsss.inference.labeller.effective_labels``).
        trained: the config in the checkpoint.
    """
    maps = config.maps
    rule = f"power {labels.exponent:g}" if labels.background == "power" else f"band {labels.low:g} to {labels.high:g}"
    parts = [
        f"class maps by {maps.method} from {_blocks(maps.start_layer)} at {_reading(map_scales(config), maps.flip)}",
        f"background {rule}",
        *(["what the decoder agrees with"] if labels.decoder else []),
        "CRF" if labels.crf else "no CRF",
    ]
    return f"{', '.join(parts)}: {_whose(config, trained, ('maps', 'labels', 'crf'))}"


def predict_words(config: Config, trained: Config) -> str:
    """How masks are predicted, in one line, and whether the settings are the run's."""
    predict = config.predict
    crf = "CRF" if predict.crf else "no CRF"
    reading = _reading(predict_scales(config), predict.flip)
    return f"images at {reading}, {crf}: {_whose(config, trained, ('predict', 'crf'))}"


def _blocks(start_layer: int | None) -> str:
    return "the upper half of the blocks" if start_layer is None else f"block {start_layer}"


def _reading(scales: Iterable[int], flip: bool) -> str:
    return f"{' and '.join(map(str, scales))} px {'with' if flip else 'without'} flip"


def _whose(config: Config, trained: Config, sections: Iterable[str]) -> str:
    """Whether sections are those of the run, and the keys that are not."""
    own = resolve_for(trained)
    other = [
        f"{section}.{key}"
        for section in sections
        for key, value in getattr(config, section)
        if value != getattr(getattr(own, section), key)
    ]
    return f"the run's settings except {first_few(other)}" if other else "the run's settings"


def map_scales(config: Config) -> tuple[int, ...]:
    """Sides at which class maps are read, pixels: ``maps.scales``, or ``ZOOM`` times the side of the crops."""
    return config.maps.scales or (round(ZOOM * config.augment.size),)


def predict_scales(config: Config) -> tuple[int, ...]:
    """Sides at which masks are predicted, pixels: ``predict.scales``, or that of the crops and ``ZOOM`` times it."""
    return config.predict.scales or (config.augment.size, round(ZOOM * config.augment.size))


def validation_side(config: Config, section: Optimisation) -> int:
    """Side at which a training validates, pixels: its ``validate_size``, or the side of the crops."""
    return section.validate_size or config.augment.size


def crf_facts(used: bool, section: CrfSection) -> dict[str, Any]:
    """What a manifest records of the CRF's settings, where the CRF is used."""
    return {f"crf_{name}": value for name, value in section.model_dump().items()} if used else {}


def batch_pixels(run: RunSection, device: torch.device) -> int:
    """Largest number of network pixels in a batch at inference: ``run.batch_pixels``, or what suits the device."""
    return run.batch_pixels or (CPU_BATCH_PIXELS if device.type == "cpu" else OTHER_BATCH_PIXELS)
