"""The learned edits by name, as ``model.attention`` in the config has them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from wsss.attention.channel_gate import ChannelGate
from wsss.attention.edit import LearnedEdit
from wsss.attention.evolving import Evolving
from wsss.attention.object_aware import ObjectAware
from wsss.attention.sparse import Sparse
from wsss.attention.temperature import LearnedTemperature
from wsss.errors import UsageError
from wsss.sections import EditName, EditSection

LEARNED: dict[EditName, type[LearnedEdit]] = {
    "temperature": LearnedTemperature,
    "channel-gate": ChannelGate,
    "evolving": Evolving,
    "sparse": Sparse,
    "object-aware": ObjectAware,
}


def build_edits(sections: Sequence[EditSection], depth: int, num_heads: int) -> nn.ModuleList:
    """The edits that a config asks for, in its order.

    Args:
        sections: name and blocks of each.
        depth: blocks of the backbone.
        num_heads: heads of a block.

    Raises:
        UsageError: a range of blocks does not lie in the backbone, or an edit without a control is asked for one.
    """
    edits = nn.ModuleList()
    for section in sections:
        first, last = section.layers or (0, depth - 1)
        if not first <= last < depth:
            raise UsageError(
                f"model.attention: {section.name} in blocks {first} to {last}, but the blocks are 0 to {depth - 1}",
                f"--set 'model.attention=[{{name: {section.name}, layers: [0, {depth - 1}]}}]'",
            )
        edit = LEARNED[section.name]
        if section.control and not edit.has_control:
            raise UsageError(f"model.attention: {section.name} has no control", f"--attention {section.name}")
        edits.append(edit(range(first, last + 1), num_heads, section))
    return edits
