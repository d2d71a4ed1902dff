"""How a trained network is used where nobody says otherwise: the scales that suit the crops of its training."""

from __future__ import annotations

from typing import Any

from wsss.config import Config

ZOOM = 1.4
"""Side to read whole images at, relative to that of the training's crops, which show their objects larger: they are
enlarged parts of an image (Touvron et al., "Fixing the train-test resolution discrepancy", 2019)."""


def for_run(config: Config, trained: Config) -> Config:
    """A config for using a trained network: its model section and, where no scales were given, such as suit its crops.

    Masks are predicted at the side of the crops. Maps are read at ``ZOOM`` times that.
    """
    update: dict[str, Any] = {"model": trained.model}
    for name, zoom in (("maps", ZOOM), ("predict", 1.0)):
        section = getattr(config, name)
        if "scales" not in section.model_fields_set:
            update[name] = section.model_copy(update={"scales": (round(zoom * trained.augment.size),)})
    return config.model_copy(update=update)
