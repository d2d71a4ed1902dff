"""`wsss show`: one picture and what a network sees in it: class maps by block and by method, on one sheet.

Shape suffixes: H rows, W columns, 3 RGB; h x w patch grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from wsss.config import Config
from wsss.data.scaled import LARGEST_SIDE, reduced, resize, scaled_size
from wsss.inference.labeller import Labeller
from wsss.inference.segmenter import Segmenter
from wsss.maps.recorder import WITHOUT_ATTENTION
from wsss.models.network import Network
from wsss.outputs.palettes import PaletteName
from wsss.outputs.pictures import contact_sheet, label_at, overlay, with_key
from wsss.reporting import Reporter
from wsss.sections import Method

METHODS: tuple[Method, ...] = get_args(Method)
LIKELY = 0.5
"""Probability above which the classifier counts a class as present where no tags are given."""
HEAT_WEIGHT = 0.6
"""Weight of the colours of a map over the grey photo, in [0, 1]."""
TILE_WIDTH = 220

Tile = tuple[str, NDArray[np.uint8]]
"""A caption and an RGB picture."""


def likely_classes(labeller: Labeller, image_HW3: NDArray[np.uint8]) -> list[str]:
    """The classes that the classifier finds in a picture: those above ``LIKELY``, or else the likeliest."""
    stride = labeller.network.backbone.stride
    size = scaled_size(image_HW3.shape[0], image_HW3.shape[1], labeller.scales[0], stride)
    image_13HW = resize(torch.from_numpy(image_HW3), size)[None].to(labeller.device).float() / 255
    probability_K = labeller.evidence([image_13HW])[0].tolist()
    least = min(LIKELY, max(probability_K))
    return [name for name, p in zip(labeller.classes, probability_K, strict=True) if p >= least]


def settings_to_show(
    config: Config, depth: int, *, layers: bool, methods: bool, attention: bool = True
) -> list[tuple[str, Config]]:
    """Name and config of each row of class maps: the run's own settings first.

    Args:
        config: of the use.
        depth: number of blocks of the backbone.
        layers: also the maps from each block on (``maps.start_layer``).
        methods: also those of each method (``maps.method``), from the config's own block.
        attention: whether the backbone has attention; else maps are read from its last block, by fewer methods.
    """

    def changed(**keys: object) -> Config:
        return config.model_copy(update={"maps": config.maps.model_copy(update=keys)})

    rows: list[tuple[str, Config]] = [(config.maps.method, config)]
    if layers and attention:
        rows += [(f"from block {first}", changed(start_layer=first)) for first in range(depth)]
    if methods:
        known = METHODS if attention else WITHOUT_ATTENTION
        rows += [(method, changed(method=method)) for method in known if method != config.maps.method]
    return rows


def show_maps(
    network: Network,
    image_HW3: NDArray[np.uint8],
    config: Config,
    reporter: Reporter,
    *,
    device: torch.device,
    tags: Sequence[str] = (),
    layers: bool = False,
    methods: bool = False,
    palette: PaletteName = "voc",
) -> tuple[NDArray[np.uint8], list[str]]:
    """The sheet of one picture: photo, label map (of a network that segments: its prediction), then class maps.

    Each row of class maps has a tile for each class; yellow is the strongest score of that map, dark blue none.

    Args:
        network: of ``train-cls`` or ``train-seg``.
        image_HW3: RGB.
        config: of the use (`wsss.inference.settings.resolve_for`).
        reporter: progress.
        device: where it computes.
        tags: names of the classes whose maps are drawn; none takes those that the classifier finds.
        layers: see `settings_to_show`.
        methods: see `settings_to_show`.
        palette: colours of the label map.

    Returns:
        the sheet (H', W', 3) RGB, and the classes that are drawn.

    Raises:
        UsageError: a tag is no class of the network, or the map settings do not fit it.
    """
    labeller = Labeller(network, config, device)
    names = list(dict.fromkeys(tags)) or likely_classes(labeller, image_HW3)
    small_HW3 = reduced(torch.from_numpy(image_HW3), LARGEST_SIDE).numpy()
    backbone = network.backbone
    rows = settings_to_show(config, backbone.depth, layers=layers, methods=methods, attention=backbone.has_attention)
    reporter.begin("class maps", len(rows))
    maps: list[Tile] = []
    for row, settings in rows:
        scores = Labeller(network, settings, device).maps(image_HW3, names)
        maps += [(row if len(names) == 1 else f"{row}: {name}", heat(small_HW3, scores[name])) for name in names]
        reporter.advance(note=row)
    if network.decoder is None:
        what, label_HW = "pseudo label", labeller.label(image_HW3, names)
    else:
        what, label_HW = "prediction", Segmenter(network, config, device).predict(image_HW3).label_HW
    label_HW = label_at(label_HW, small_HW3.shape[:2])
    tiles = [("photo", small_HW3), (what, overlay(small_HW3, label_HW, palette=palette)), *maps]
    columns = next(count for count in (6, 5, 4, 3, 2, 1) if count <= len(tiles))
    return with_key(contact_sheet(tiles, columns, TILE_WIDTH), label_HW, network.classes, palette), names


def heat(image_HW3: NDArray[np.uint8], score_hw: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A class score over the photo in grey, in the colours of viridis: (H, W, 3) RGB.

    Args:
        image_HW3: RGB.
        score_hw: in [0, 1], on any grid.
    """
    height, width = image_HW3.shape[:2]
    score_HW = cv2.resize(score_hw, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    level_HW = np.rint(255 * score_HW).astype(np.uint8)
    colour_HW3 = cv2.cvtColor(cv2.applyColorMap(level_HW, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    grey_HW = cv2.cvtColor(image_HW3, cv2.COLOR_RGB2GRAY)
    blended_HW3 = (1 - HEAT_WEIGHT) * grey_HW[..., None] + HEAT_WEIGHT * colour_HW3
    return np.asarray(np.rint(blended_HW3), dtype=np.uint8)
