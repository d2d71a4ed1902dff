"""What a network says of a batch under each condition of a suite, as figures of each image.

Shape suffixes: B images, K classes, C = K + 1 label channels, R rows of the suite, L blocks, P prefix tokens, h x w
patch grid, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsss.attention.temperature import Temperature
from wsss.data.masks import IGNORE_INDEX
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.inference.evaluate import strongest_class
from wsss.inference.showing import heat
from wsss.labels.bands import labels_from_grid
from wsss.maps.generate import forward_with_maps, frozen
from wsss.maps.recorder import MapSettings
from wsss.maps.scores import normalised
from wsss.maps.tape import AttentionTape
from wsss.models.network import Network
from wsss.outputs.pictures import label_at
from wsss.robustness.suites import PLAIN, Changed, Clean, Condition, readings

Figures = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Said:
    """What the network says of a batch, in the order of the clean images.

    Attributes:
        logits_BK: of the classes.
        scores_BKhw: class maps in [0, 1]; those of absent classes are 0.
        log_probabilities_BChw: of the decoder, on its grid; None without one.
    """

    logits_BK: Tensor
    scores_BKhw: Tensor
    log_probabilities_BChw: Tensor | None


def at_temperature(network: Network, value: float) -> Any:
    """A context in which the network has a temperature of attention."""
    return nullcontext() if value == PLAIN else network.edited(Temperature(value))


def read(network: Network, changed: Changed, present_BK: Tensor, settings: MapSettings) -> Said:
    """Tags, class maps and, with a decoder, masks from one pass."""
    with frozen(network), torch.enable_grad():
        features, logits_BK, maps = forward_with_maps(
            network, changed.images_B3HW, present_BK, settings, taps=network.decoder is not None
        )
    with torch.no_grad():
        restored_BKhw = changed.restore(maps.dense())
        scores_BKhw = normalised(restored_BKhw.flatten(0, 1)).reshape(restored_BKhw.shape)
        decoded = None
        if network.decoder is not None:
            decoded = changed.restore(network.decode_grid(features).float().log_softmax(dim=1))
    return Said(logits_BK.detach().float(), scores_BKhw, decoded)


def measure(
    network: Network,
    clean: Clean,
    conditions: Sequence[Condition],
    temperatures: Sequence[float],
    settings: MapSettings,
    threshold: float,
    truths: Sequence[NDArray[np.uint8] | None],
    pictured: Sequence[bool],
) -> list[Figures]:
    """The figures of each image of a batch, a row for each of ``suites.rows_of``.

    Args:
        network: in ``eval`` mode.
        clean: the batch; its saliency is not used, but made here.
        conditions: of the suite.
        temperatures: of attention, ``PLAIN`` among them.
        settings: how class maps are read.
        threshold: class score above which a pixel of a seed has its class.
        truths: the mask (H, W) of each image; None where there is none.
        pictured: which images keep a picture of each row.

    Returns:
        For each image: "logits" (R, K) float32; "seeds", "part" (the seeds in the replaced patches) and "masks"
        (R, C, C + 1) int32, counts of pixels by truth and prediction, all 0 where they are unknown; "capture" (R, L)
        float32, see `capture`, NaN where no part was replaced; perhaps "pictures" (R, H, W, 3) uint8.
    """
    plain = read(network, Changed(clean.images_B3HW), clean.present_BK, settings)
    clean = replace(clean, saliency_Bhw=plain.scores_BKhw.amax(dim=1).cpu())
    rows: list[list[Figures]] = []
    for condition in conditions:
        for made, reads in readings(condition, temperatures):
            with at_temperature(network, made):
                changed = condition.change(network, clean)
            for value in reads:
                with at_temperature(network, value):
                    said = read(network, changed, clean.present_BK, settings)
                    captured_BL = capture(network, changed)
                rows.append(list(_figures(said, clean, changed, captured_BL, threshold, truths, pictured)))
    return [{name: np.stack([row[i][name] for row in rows]) for name in rows[0][i]} for i in range(len(truths))]


@torch.no_grad()
def capture(network: Network, changed: Changed) -> Tensor:
    """How much attention the replaced patches draw: their share of the class row, divided by their share of patches.

    The row is that of the class token, or without one the mean over the patches' rows, averaged over heads; 1 is fair.

    Returns:
        (B, L), NaN where no patch was replaced; L is 0 without attention.
    """
    backbone, batch = network.backbone, len(changed.images_B3HW)
    if not backbone.has_attention:
        return torch.empty(batch, 0)
    if changed.part_Bhw is None:
        return torch.full((batch, backbone.depth), torch.nan)
    with AttentionTape(backbone.blocks, name=backbone.name) as tape:
        network.classify(changed.images_B3HW)
    prefix = backbone.num_prefix_tokens
    rows = slice(0, 1) if backbone.has_class_token else slice(prefix, None)
    part_BM = changed.part_Bhw.flatten(1).to(changed.images_B3HW.device).float()
    shares = []
    for attention in tape.attentions:
        row_BM = attention.rows(rows).mean(dim=(1, 2))[:, prefix:]
        shares.append((row_BM * part_BM).sum(dim=1) / row_BM.sum(dim=1))
    return (torch.stack(shares, dim=1) / part_BM.mean(dim=1, keepdim=True)).cpu()


def _figures(
    said: Said,
    clean: Clean,
    changed: Changed,
    captured_BL: Tensor,
    threshold: float,
    truths: Sequence[NDArray[np.uint8] | None],
    pictured: Sequence[bool],
) -> Iterator[Figures]:
    """The figures of each image in one row."""
    scores_BKhw, channels = said.scores_BKhw.cpu().numpy(), clean.present_BK.shape[1] + 1
    for i, truth_HW in enumerate(truths):
        tags = np.flatnonzero(clean.present_BK[i].numpy())
        empty = np.zeros((channels, channels + 1), np.int32)
        found = {"logits": said.logits_BK[i].cpu().numpy(), "seeds": empty, "part": empty, "masks": empty}
        found["capture"] = captured_BL[i].numpy().astype(np.float32)
        if truth_HW is not None:
            size = (truth_HW.shape[0], truth_HW.shape[1])
            best_HW, class_HW = strongest_class(scores_BKhw[i][tags], tags, size)
            seed_HW = np.where(best_HW > threshold, class_HW, 0)
            found["seeds"] = counts(seed_HW, truth_HW, channels)
            if changed.part_Bhw is not None:
                inside_HW = label_at(changed.part_Bhw[i].cpu().numpy().astype(np.uint8), size) > 0
                found["part"] = counts(seed_HW, np.where(inside_HW, truth_HW, IGNORE_INDEX), channels)
            if said.log_probabilities_BChw is not None:
                label_HW = labels_from_grid(said.log_probabilities_BChw[i], size).cpu().numpy()
                found["masks"] = counts(label_HW, truth_HW, channels)
        if pictured[i]:
            found["pictures"] = _picture(changed.images_B3HW[i], clean.images_B3HW[i], scores_BKhw[i])
        yield found


def counts(label_HW: NDArray[Any], truth_HW: NDArray[Any], channels: int) -> NDArray[np.int32]:
    """Pixels of one image by truth and prediction, (C, C + 1); see ``ConfusionMatrix``."""
    matrix = ConfusionMatrix(channels)
    matrix.update(label_HW.astype(np.uint8), truth_HW.astype(np.uint8))
    return matrix.counts.astype(np.int32)


def _picture(changed_3HW: Tensor, clean_3HW: Tensor, scores_Khw: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The perturbed image, and beside it its strongest class map over the clean image."""
    changed_HW3, clean_HW3 = (
        np.rint(255 * image.permute(1, 2, 0).cpu().numpy()).astype(np.uint8) for image in (changed_3HW, clean_3HW)
    )
    return np.concatenate([changed_HW3, heat(clean_HW3, scores_Khw.max(axis=0))], axis=1)
