"""One training step up to its losses, as a module.

``TrainingStep.forward(batch, step) -> losses`` is everything that needs the weights. DistributedDataParallel has to
wrap all of it, so that its hooks see the whole computation. A step module holds the network and its moving average; it
uses no files, clocks or signals. ``classify.py`` and ``segment.py`` define the two kinds.

Shape suffixes: B images, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from wsss.attention.edit import LearnedEdit
from wsss.attention.object_aware import ObjectAware
from wsss.config import Optimisation
from wsss.models.decoder import ChannelDropout
from wsss.models.network import Network
from wsss.training.average import MovingAverage
from wsss.training.losses import classification_loss
from wsss.training.optimiser import schedule
from wsss.training.ranks import ALONE, Ranks

Batch = dict[str, Tensor]
"""``image`` (B, 3, H, W) float32 in [0, 1] on the device; ``present`` (B, K) bool on the host, where it decides how
many passes there are. Perhaps also ``known`` (B, K) bool, which of the tags are known, where some are not, ``label``
and ``guide`` (B, H, W) uint8 class indices and ``saliency`` (B, H, W) uint8, on the device, and of a part of a batch
what `TrainingStep.counts` counts, on average over the parts."""


class TrainingStep(nn.Module):
    """Base of the two kinds of training.

    Args:
        network: is trained.
        section: optimiser, schedule and the decay of the moving average.
        total: steps of the whole training.

    Attributes:
        average: the moving average of the network; None where the section keeps none.
        decoder_lr_factor: learning rate of the decoder relative to that of the other parts.
        layer_decay: learning rate of a block relative to that of the block above it.
        ranks: the processes that take the step together.
        making: what the kind was made with beside network and config, plain values.
    """

    network: Network
    average: MovingAverage | None
    decoder_lr_factor = 1.0
    layer_decay = 1.0
    ranks: Ranks = ALONE
    making: Mapping[str, Any] = {}

    def __init__(self, network: Network, section: Optimisation, total: int) -> None:
        super().__init__()
        self.network = network
        self.average = MovingAverage(network, section.ema) if section.ema else None
        self.section = section
        self.total = total

    @property
    def shown(self) -> Network:
        """The network that is validated and saved for use: the moving average where there is one."""
        return self.network if self.average is None else self.average.network

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Weighted loss terms by name; their sum is minimised.

        Args:
            batch: see ``Batch``.
            step: number of the step, from 0.
        """
        raise NotImplementedError

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Numbers by name that losses divide by, as far as they are known before the step: ``known_count``."""
        return {"known_count": batch["known"].sum()} if "known" in batch else {}

    def leaves_unused(self, step: int) -> bool:
        """Whether trained parameters get no gradient in a step."""
        return False

    def take_part(self, part: int, parts: int) -> None:
        """Let the next ``forward`` take a part of the batch, from 0: its dropout is that of these rows."""
        for module in self.network.modules():
            if isinstance(module, ChannelDropout | ObjectAware):
                module.part, module.parts = part, parts

    def warm_up(self, step: int) -> None:
        """Let edits of attention that begin gradually have their strength of a step."""
        progress = min(1.0, step / max(1.0, self.section.warmup * self.total))
        for edit in self.network.attention:
            if isinstance(edit, LearnedEdit):
                edit.warm_up(progress)

    def lr_factor(self, step: int) -> float:
        """Learning rate of a step relative to the base rate, in [0, 1]."""
        return schedule(self.section, step, self.total)

    def follow(self) -> None:
        """Let the moving average follow the network; called after each optimiser step."""
        if self.average is not None:
            self.average.follow(self.network)


def tag_loss(logits_BK: Tensor, batch: Batch) -> Tensor:
    """The classification loss of a batch."""
    return classification_loss(logits_BK, batch["present"], batch.get("known"), batch.get("known_count"))
