"""Class maps of a batch: one forward, then one backward for the r-th present class of every image.

`recorder.py` records and reads one pass. Here a batch is cut into passes, at one scale or several, and the maps of all
passes are put together.

Tags decide how many passes there are, so they are needed on the host. Tags on a device work too, but reading them is a
device synchronisation.

Shape suffixes: B images, C = K + 1 label channels (in features those of a token), K classes, H x W pixels, h x w patch
grid, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wsss.config import Coupling, Method, Rows
from wsss.maps.passes import image_groups
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import BY_BACKWARD, MapSettings, Recorder
from wsss.maps.scores import normalise_scores
from wsss.models.averaged import LabelProbabilities, passes
from wsss.models.backbone import Features
from wsss.models.network import Network


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Disable ``requires_grad`` for all parameters; restore each flag on exit."""
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def class_maps(
    network: Network,
    images_B3HW: Tensor,
    present_BK: Tensor,
    *,
    method: Method = "getam",
    coupling: Coupling = "released",
    start_layer: int = 0,
    rows: Rows = "auto",
    gamma: float = 1.0,
    spread: int = 0,
) -> tuple[Tensor, Tensor]:
    """Class maps of a batch (GETAM, arXiv 2112.02841, section 3, or another method), as published by default.

    The config has other defaults, the best that were measured (benchmarks/RESULTS.md): the bare gradient of the
    attention in the upper half of the blocks, root, spread once. Commands and ``wsss.Labeller`` use those;
    ``read_maps(network, images_B3HW, present_BK, MapSettings())`` gives such maps.

    Args:
        network: in the mode it should run in (``eval`` for labels).
        images_B3HW: in [0, 1], any size of at least one patch.
        present_BK: bool, on the host; maps are made for these classes.
        method: see ``wsss.maps.methods``.
        coupling: GETAM's.
        start_layer: first block that counts, from 0.
        rows: rows of the attention to read; "auto" follows the readout.
        gamma: power the maps are raised to; 1 leaves them as published.
        spread: steps of spreading by the affinity of the patches; 0 leaves the maps as published.

    Returns:
        logits (B, K) and maps (B, K, h, w) float32, at least 0, not normalised; maps of absent classes are 0.
    """
    settings = MapSettings(
        method=method, coupling=coupling, start_layer=start_layer, rows=rows, gamma=gamma, spread=spread
    )
    return read_maps(network, images_B3HW, present_BK, settings)


def read_maps(
    network: Network, images_B3HW: Tensor, present_BK: Tensor, settings: MapSettings
) -> tuple[Tensor, Tensor]:
    """``class_maps`` with its settings as one object."""
    with frozen(network), torch.enable_grad():
        _, logits_BK, maps = forward_with_maps(network, images_B3HW, present_BK, settings)
    return logits_BK, maps.dense()


def forward_with_maps(
    network: Network,
    images_B3HW: Tensor,
    present_BK: Tensor,
    settings: MapSettings,
    *,
    taps: bool = False,
    keep_graph: bool = False,
    guide: Tensor | None = None,
) -> tuple[Features, Tensor, PresentMaps]:
    """One forward of the network and the class maps read from it.

    A backward costs as much for one image of the batch as for all. So images with about equally many classes share a
    pass, and no image takes part in the backwards of many others.

    Args:
        network: its parameters may require gradients.
        images_B3HW: in [0, 1].
        present_BK: bool, on the host.
        settings: how to read a class.
        taps: whether features hold the taps of the decoder.
        keep_graph: whether features and logits keep their graph for the backward of a loss.
        guide: of these images, for edits of attention (``Network.features``).

    Returns:
        features, logits (B, K) and maps (h, w) of the present classes; maps are detached, the others unless
        ``keep_graph``.
    """
    groups = image_groups(images_B3HW, present_BK, network.backbone.stride) if settings.method in BY_BACKWARD else []
    read = []
    for some_B3HW, some_BK, some_guide in _parts(images_B3HW, present_BK, guide, groups):
        with Recorder(network, settings) as recorder:
            features = network.features(some_B3HW, taps=taps, guide=some_guide)
            logits_BK = network.readout(features)
        maps = recorder.maps(features, logits_BK, some_BK, keep_graph=keep_graph)
        if not keep_graph:
            features, logits_BK = _merged([features], _detached), logits_BK.detach()
        read.append((features, logits_BK, maps))
    if len(read) == 1:
        return read[0]
    order_B = torch.cat(groups).argsort().to(images_B3HW.device, non_blocking=True)
    return (
        _merged([features for features, _, _ in read], lambda parts: torch.cat(parts)[order_B]),
        torch.cat([logits_BK for _, logits_BK, _ in read])[order_B],
        PresentMaps.gathered([maps for _, _, maps in read], [group.tolist() for group in groups]),
    )


def _parts(
    images_B3HW: Tensor, present_BK: Tensor, guide: Tensor | None, groups: list[Tensor]
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Images, tags and guide of each group; all where there is but one."""
    if len(groups) < 2:
        yield images_B3HW, present_BK, guide
        return
    for index_B in groups:
        there_B = index_B.to(images_B3HW.device, non_blocking=True)
        yield images_B3HW[there_B], present_BK[index_B], None if guide is None else guide[there_B]


def _detached(parts: list[Tensor]) -> Tensor:
    (part,) = parts
    return part.detach()


def _merged(parts: Sequence[Features], merge: Callable[[list[Tensor]], Tensor]) -> Features:
    """Features of a batch that was cut into several passes, each tensor merged from those of the parts."""

    def of(tensors: Sequence[Tensor | None]) -> Tensor | None:
        there = [tensor for tensor in tensors if tensor is not None]
        return merge(there) if there else None

    return Features(
        patches_BNC=merge([part.patches_BNC for part in parts]),
        class_BC=of([part.class_BC for part in parts]),
        grid=parts[0].grid,
        taps=[
            (merge([patches for patches, _ in tap]), of([token for _, token in tap]))
            for tap in zip(*(part.taps for part in parts), strict=True)
        ],
    )


def multiscale_scores(
    network: Network,
    images_by_scale: Sequence[Tensor],
    present_BK: Tensor,
    settings: MapSettings,
    *,
    flip: bool = False,
    decoder: LabelProbabilities | None = None,
) -> tuple[Tensor, PresentMaps]:
    """Class scores averaged over scales and flips, on the finest scale's grid.

    The maps of each pass are divided by their own maximum first, since gradients become smaller as the number of tokens
    grows.

    Args:
        network: in ``eval`` mode.
        images_by_scale: for each scale (B, 3, H_s, W_s) in [0, 1].
        present_BK: bool, on the host.
        settings: how to read a class.
        flip: also read the mirrored images.
        decoder: collects the decoder's scores of the same passes.

    Returns:
        logits (B, K), averaged, and scores in [0, 1] of the present classes.
    """
    grid = finest_grid(network, images_by_scale)
    logits, total = [], None
    for images, mirrored in passes(images_by_scale, flip=flip):
        with frozen(network), torch.enable_grad():
            features, logits_BK, maps = forward_with_maps(
                network, images, present_BK, settings, taps=decoder is not None
            )
        if decoder is not None:
            with torch.no_grad():
                decoder.add(network.decode_grid(features), mirrored=mirrored)
        scores = normalise_scores(maps.with_values(maps.values_Rhw.flip(2)) if mirrored else maps).at_size(grid)
        logits.append(logits_BK)
        total = scores if total is None else total.with_values(total.values_Rhw + scores.values_Rhw)
    assert total is not None
    return torch.stack(logits).mean(dim=0), normalise_scores(total)


def finest_grid(network: Network, images_by_scale: Sequence[Tensor]) -> tuple[int, int]:
    """(h, w) of the scale with most pixels."""
    finest = max(images_by_scale, key=lambda images: images.shape[2] * images.shape[3])
    rows, columns = network.backbone.stride
    return -(-finest.shape[2] // rows), -(-finest.shape[3] // columns)
