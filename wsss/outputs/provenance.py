"""What supervises: a figure that does not say what its network has learnt from cannot be compared with another.

``Supervision`` goes with a network into its checkpoint and with what it makes into a manifest, from where the next
network takes it over.
"""

from __future__ import annotations

from collections.abc import Iterable

from wsss.config import DataSection

Supervision = tuple[str, ...]
"""Sources, each once, those that came first in front; empty where nobody knows."""

LABEL_MAPS: Supervision = ("label maps",)
"""Of unknown making: perhaps drawn by hand."""

UNKNOWN: Supervision = ("a run that does not say its supervision",)


def of_data(data: DataSection, *, saliency: bool) -> Supervision:
    """The tags of a data folder and, where they are used, its saliency maps."""
    tags = "tags from masks" if data.tags_from == "masks" else "tags"
    return (tags, "saliency maps") if saliency and data.saliency is not None else (tags,)


def chosen_on(split: str) -> str:
    """Of a checkpoint that is not simply the last one."""
    return f"checkpoint chosen on {split}"


def joined(*parts: Iterable[str]) -> Supervision:
    """All sources of several."""
    return tuple(dict.fromkeys(source for part in parts for source in part))
