"""The backbones that can be named, and what each is: what `wsss backbones` lists."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from wsss.models.backbone import Backbone, plain_transformers
from wsss.models.checkpoint import Unfilled
from wsss.models.convolution import Convolution, convolution_networks, is_convolution


class Described(NamedTuple):
    """A backbone.

    Attributes:
        name: of the timm model.
        read: what class maps are read from: "attention", or the last "maps" of a network without it.
        stride: side of a patch, pixels of the image that the network reads.
        prefix_tokens: tokens before the patches.
        heads: of a block of attention; 0 where there is none.
    """

    name: str
    read: Literal["attention", "maps"]
    stride: int
    prefix_tokens: int
    heads: int


def backbone_names(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern: transformers, then convolution networks."""
    return plain_transformers(pattern) + convolution_networks(pattern)


def described(name: str) -> Described:
    """What a backbone is; it is built without weights, which takes about a tenth of a second.

    Raises:
        UsageError: it is in timm's list, but class maps cannot be read from it.
    """
    with torch.device("meta"), Unfilled():
        backbone = (Convolution if is_convolution(name) else Backbone)(name)
    read: Literal["attention", "maps"] = "attention" if backbone.has_attention else "maps"
    return Described(name, read, backbone.stride[0], backbone.num_prefix_tokens, backbone.num_heads)
