"""What the figures of all images say of blocks and heads, and the range of blocks that is chosen.

Shape suffixes: L blocks, A heads, R present (image, class) pairs, O offsets along an axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsss.analysis.heads import direction
from wsss.analysis.layers import ALIKE, alike, best_start
from wsss.outputs.figures import Figures


@dataclass(frozen=True, slots=True)
class Oracle:
    """The best seeds of the maps of a range, chosen with the masks that they are scored on.

    Attributes:
        mean_iou: in [0, 1].
        threshold: the best one.
        images: with a mask.
    """

    mean_iou: float
    threshold: float
    images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """Means over all images; see `wsss.analysis.heads`. ``offset`` is "-" where its share is too small."""

    block: int
    head: int
    distance: float
    offset: str
    share: float
    query_spread: float
    head_spread: float
    alignment: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Means over all images; of ``gain`` and ``deletion`` over all pairs of an image and a class that it holds.

    Attributes:
        gain: see `wsss.analysis.layers.gains`.
        gate: mean of FAN's channel gate.
        gate_deviation: its standard deviation over the channels.
        deletion: of the maps of this block and all later ones; see `wsss.analysis.layers.deletions`.
        oracle_miou: of the seeds of these maps at the best threshold; None without masks.
        oracle_threshold: that threshold.
    """

    block: int
    gain: float
    gate: float
    gate_deviation: float
    deletion: float
    oracle_miou: float | None
    oracle_threshold: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """What `wsss analyze` found.

    Attributes:
        facts: what it was made with, plain values by name.
        images, pairs, masks: numbers of images, of pairs of an image and a class, and of images with a mask.
        start_layer: the first block of the range with the largest deletion; no mask took part.
        alike: first blocks of ranges that are as good.
        oracle_start_layer: that of the best seeds, chosen with masks; None without masks.
        heads, blocks: see there.
        offsets_LAOO: mean attention to each offset.
    """

    facts: Mapping[str, Any]
    images: int
    pairs: int
    masks: int
    start_layer: int
    alike: list[int]
    oracle_start_layer: int | None
    heads: list[Head]
    blocks: list[Block]
    offsets_LAOO: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Plain values; offsets are left out."""
        plain = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("heads", "blocks", "offsets_LAOO")
        }
        plain["facts"] = dict(self.facts)
        return plain | {name: [asdict(one) for one in getattr(self, name)] for name in ("blocks", "heads")}

    def of_block(self, block: int) -> list[Head]:
        """Its heads."""
        return [head for head in self.heads if head.block == block]

    @property
    def indifferent(self) -> bool:
        """Whether more than half of all ranges are as good as the best one: the curve is flat."""
        return 2 * len(self.alike) > len(self.blocks)

    def words(self) -> str:
        """The choice in one line."""
        last = len(self.blocks) - 1
        if self.blocks[self.start_layer].deletion <= 0:
            return "no range of blocks has maps that lower the logits when they are blanked: train longer"
        words = f"maps of blocks {self.start_layer} to {last} have the largest deletion"
        if not self.indifferent:
            return words
        many = f"{len(self.alike)} of {len(self.blocks)} ranges are within {100 * ALIKE:g}% of it"
        return f"{words}, but {many}: these weights do not care"

    def oracle_words(self) -> str:
        """The best seeds and those of the choice, in one line; empty without masks."""
        if self.oracle_start_layer is None:
            return ""
        scores = [100 * (block.oracle_miou or 0.0) for block in self.blocks]
        best, chosen = scores[self.oracle_start_layer], scores[self.start_layer]
        return (
            f"oracle, from {self.masks} masks, to compare with: block {self.oracle_start_layer} on, seeds {best:.1f} %"
            f" mIoU; the choice has {chosen:.1f} %, the last block {scores[-1]:.1f} %, all blocks {scores[0]:.1f} %"
        )


def summarise(facts: Mapping[str, Any], images: Sequence[Figures], oracle: Sequence[Oracle]) -> Analysis:
    """The means over all images.

    Args:
        facts: see `Analysis`.
        images: the figures of each (`wsss.analysis.measure.measure`); at least one image has a class.
        oracle: by the first block; empty without masks.
    """
    names = ("distance", "query_spread", "head_spread", "alignment", "offsets", "gate", "gate_deviation")
    mean = {name: _mean([figures[name] for figures in images]) for name in names}
    gain_L, deletion_L = (
        np.concatenate([figures[name] for figures in images]).mean(axis=0, dtype=np.float64)
        for name in ("gain", "deletion")
    )
    scores = [one.mean_iou for one in oracle]
    depth, heads = mean["distance"].shape
    return Analysis(
        facts=facts,
        images=len(images),
        pairs=sum(len(figures["deletion"]) for figures in images),
        masks=oracle[0].images if oracle else 0,
        start_layer=best_start(deletion_L),
        alike=alike(deletion_L),
        oracle_start_layer=int(np.argmax(scores)) if oracle else None,
        heads=[_head(mean, block, head) for block in range(depth) for head in range(heads)],
        blocks=[
            Block(
                block=block,
                gain=float(gain_L[block]),
                gate=float(mean["gate"][block]),
                gate_deviation=float(mean["gate_deviation"][block]),
                deletion=float(deletion_L[block]),
                oracle_miou=oracle[block].mean_iou if oracle else None,
                oracle_threshold=oracle[block].threshold if oracle else None,
            )
            for block in range(depth)
        ],
        offsets_LAOO=mean["offsets"],
    )


def _mean(values: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Over images, of those whose value is known; NaN where it is of none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        return np.asarray(np.nanmean(np.stack(values).astype(np.float64), axis=0))


def _head(mean: Mapping[str, NDArray[np.float64]], block: int, head: int) -> Head:
    name, share = direction(torch.from_numpy(mean["offsets"][block, head]))
    found = {key: float(mean[key][block, head]) for key in ("distance", "query_spread", "head_spread", "alignment")}
    aligned = found.pop("alignment")
    return Head(
        block=block, head=head, offset=name, share=share, alignment=None if np.isnan(aligned) else aligned, **found
    )
