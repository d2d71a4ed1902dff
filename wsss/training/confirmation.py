"""Whether a network confirms its own errors from round to round: its labels beside those of the class maps alone.

A decoder that has learnt the ground around an object finds it again, and where class maps are weak the labels that both
agree on grow beyond what the maps support. Measured without masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from wsss.config import Config
from wsss.data.masks import IGNORE_INDEX
from wsss.data.records import Record, TaggedSet
from wsss.inference.labeller import Labeller
from wsss.models.network import Network
from wsss.outputs.journal import Entry
from wsss.reporting import Reporter

SAMPLE = 48
"""Images whose class maps are looked at, at most."""
GROWN = 1.15
"""Labels with this many times more foreground than the maps alone give are said to have grown: a guess between 1 and
the 1.29 of a network that learnt the ground around horses (LOG.md)."""


def say_growth(
    network: Network,
    train: TaggedSet,
    entries: Mapping[str, Entry],
    config: Config,
    device: torch.device,
    reporter: Reporter,
) -> float:
    """Say which share of the pixels is foreground in the labels of a round, and by its class maps alone.

    Args:
        network: that made the labels, with a decoder.
        train: the images.
        entries: what was counted in their labels, by name.
        config: the settings of the labels.
        device: of the network.
        reporter: gets one line, which warns where the labels have grown.

    Returns:
        The first share divided by the second; 1 where the maps give no foreground.
    """
    alone = config.model_copy(update={"labels": config.labels.model_copy(update={"decoder": False, "crf": False})})
    labeller = Labeller(network, alone, device)
    pixels = np.zeros(3)
    for record in spread([one for one in train.records if one.tags and one.name in entries], SAMPLE):
        tags = [train.classes[tag] for tag in record.tags]
        label_HW = labeller.label(record.decode(), tags)
        counts = entries[record.name].pixels
        agreed = sum(count for index, count in counts.items() if 0 < index < IGNORE_INDEX)
        pixels += agreed, int(np.count_nonzero((label_HW > 0) & (label_HW < IGNORE_INDEX))), label_HW.size
    agreed_share, maps_share = pixels[:2] / max(1, pixels[2])
    ratio = agreed_share / maps_share if maps_share else 1.0
    said = (
        f"objects have {agreed_share:.1%} of the pixels in the labels of this round, {maps_share:.1%} by the class maps"
    )
    if ratio > GROWN:
        said += "; the network may confirm the ground around them: look at the labels, or train with --rounds 1"
    reporter.say(said)
    return float(ratio)


def spread(records: Sequence[Record], most: int) -> list[Record]:
    """At most so many records, evenly spread over all."""
    chosen = np.linspace(0, len(records) - 1, min(most, len(records))).round().astype(int)
    return [records[k] for k in chosen.tolist()]
