"""Settings of inference that depend on others: scales from the crops of the training, the CRF's facts."""

from __future__ import annotations

from typing import Any

import torch

from wsss.config import Config, CrfSection, Optimisation, RunSection

ZOOM = 1.4
"""Side at which class maps of whole images are read, as a factor of the side of the training crops.

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


def map_scales(config: Config) -> tuple[int, ...]:
    """Sides at which class maps are read, pixels: ``maps.scales``, or ``ZOOM`` times the side of the crops."""
    return config.maps.scales or (round(ZOOM * config.augment.size),)


def predict_scales(config: Config) -> tuple[int, ...]:
    """Sides at which masks are predicted, pixels: ``predict.scales``, or the side of the crops."""
    return config.predict.scales or (config.augment.size,)


def validation_side(config: Config, section: Optimisation) -> int:
    """Side at which a training validates, pixels: its ``validate_size``, or the side of the crops."""
    return section.validate_size or config.augment.size


def crf_facts(used: bool, section: CrfSection) -> dict[str, Any]:
    """What a manifest records of the CRF's settings, where the CRF is used."""
    return {f"crf_{name}": value for name, value in section.model_dump().items()} if used else {}


def batch_pixels(run: RunSection, device: torch.device) -> int:
    """Largest number of network pixels in a batch at inference: ``run.batch_pixels``, or what suits the device."""
    return run.batch_pixels or (CPU_BATCH_PIXELS if device.type == "cpu" else OTHER_BATCH_PIXELS)
