"""Provenance: which kinds of labels a network or a label map was learnt from.

It goes with a network into its checkpoint and with label maps into their manifest; a network that is trained on those
takes it over. Figures of networks that learnt from different things cannot be compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wsss.config import DataSection
from wsss.outputs.manifest import made_in, read_making

Supervision = tuple[str, ...]
"""Kinds of labels, each once, in the order in which they were used; empty where it is unknown."""

LABEL_MAPS: Supervision = ("label maps",)
"""Label maps that do not say how they were made; perhaps drawn by hand."""

UNKNOWN: Supervision = ("a run that does not say its supervision",)


def data_supervision(
    data: DataSection, *, saliency: bool, unknown: bool = False, of_objects: bool = False
) -> Supervision:
    """The tags of a data folder and, where ``saliency`` says that they are used, its saliency maps.

    ``unknown`` says that some of the tags are unknown (``TaggedSet.has_unknown``), ``of_objects`` that they are those
    of drawn objects (``TaggedSet.of_objects``).
    """
    tags = "tags from masks" if data.tags_from == "masks" else "tags of instance annotations" if of_objects else "tags"
    if unknown:
        tags = f"{tags}, some of them unknown"
    return (tags, "saliency maps") if saliency and data.saliency is not None else (tags,)


def labels_supervision(labels: Path) -> Supervision:
    """What the label maps of a folder come from, as the manifest beside them says; an empty list says nothing.

    Raises:
        DataError: the manifest is broken.
    """
    said = read_making(made_in(labels)).supervision
    return LABEL_MAPS if said is None else said or UNKNOWN


def chosen_on(split: str) -> str:
    """The kind of supervision that a checkpoint has which was chosen by its score on a split."""
    return f"checkpoint chosen on {split}"


def all_of(*parts: Iterable[str]) -> Supervision:
    """The kinds of several supervisions, each once."""
    return tuple(dict.fromkeys(kind for part in parts for kind in part))
