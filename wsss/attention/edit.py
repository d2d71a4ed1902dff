"""What an edit of attention may do: four moments of a block, of which it overrides those that it needs.

Shape suffixes: B images, A heads, N tokens (prefix tokens first), D channels a head, C channels of a token, K channels
of a guide, H x W pixels. The bias has the suffix BANN; it may have size 1 in the axes B, A and the first N.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from wsss.sections import EditSection


@dataclass(frozen=True, slots=True)
class Call:
    """The attention of one block before it is computed: ``softmax(scale * query @ key.T + bias) @ value``.

    Attributes:
        layer: index of the block, from 0.
        query_BAND: queries.
        key_BAND: keys.
        value_BAND: values.
        scale: factor of the product of queries and keys.
        bias_BANN: added to the scaled product; None where nothing is added.
    """

    layer: int
    query_BAND: Tensor
    key_BAND: Tensor
    value_BAND: Tensor
    scale: float
    bias_BANN: Tensor | None = None

    def logits(self) -> Tensor:
        """What the softmax is taken of, (B, A, N, N) float32; to be called with autocast off."""
        logits_BANN = self.query_BAND.float() @ self.key_BAND.float().transpose(-2, -1) * self.scale
        return logits_BANN if self.bias_BANN is None else logits_BANN + self.bias_BANN.float()


@dataclass(slots=True)
class Pass:
    """One forward of the network.

    Attributes:
        images_B3HW: in [0, 1], padded to whole patches.
        grid: (h, w) of the patches.
        num_prefix_tokens: P.
        guide_BKhw: what is known of each image, on any grid; None where nothing is.
        memory: what edits leave for later blocks; it ends with the pass.
    """

    images_B3HW: Tensor
    grid: tuple[int, int]
    num_prefix_tokens: int
    guide_BKhw: Tensor | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """N, prefix tokens included."""
        return self.grid[0] * self.grid[1] + self.num_prefix_tokens


class Edit(nn.Module):
    """Changes the attention of some blocks. Each moment returns what it is given, unless a subclass overrides it.

    Args:
        layers: indices of the blocks that are edited; None edits all.
    """

    def __init__(self, layers: range | None = None) -> None:
        super().__init__()
        self.layers = layers

    def acts_on(self, layer: int) -> bool:
        """Whether a block is edited."""
        return self.layers is None or layer in self.layers

    def call(self, call: Call, of: Pass) -> Call:
        """Change queries, keys, scale or bias: the attention stays on the fused kernel."""
        return call

    def logits(self, logits_BANN: Tensor, call: Call, of: Pass) -> Tensor:
        """Change what the softmax is taken of, float32 with autocast off; the attention is computed explicitly."""
        return logits_BANN

    def weights(self, weights_BANN: Tensor, call: Call, of: Pass) -> Tensor:
        """Change the attention itself, float32 with autocast off; it is computed explicitly."""
        return weights_BANN

    def channels(self, output_BNC: Tensor, layer: int, of: Pass) -> Tensor:
        """Change the output of a block's MLP. Where class maps begin their graph (``AttentionTape.narrow_start``) the
        block runs again on its class token alone, and so does this.
        """
        return output_BNC

    def overrides(self, moment: str) -> bool:
        """Whether the class has a moment ("call", "logits", "weights" or "channels") of its own."""
        return getattr(type(self), moment) is not getattr(Edit, moment)


class LearnedEdit(Edit):
    """An edit with parameters, which are part of the network. At its start it changes nothing.

    Args:
        layers: indices of the blocks that are edited.
        num_heads: A.
        section: of the config.

    Attributes:
        has_control: whether there is a control: the same without what it is said to be good for.
        control: whether this is it.
    """

    layers: range
    has_control: ClassVar[bool] = False

    def __init__(self, layers: range, num_heads: int, section: EditSection) -> None:
        super().__init__(layers)
        self.num_heads = num_heads
        self.control = section.control

    def warm_up(self, progress: float) -> None:
        """Called before each step of a training, with the share of its warm-up that is done, in [0, 1]."""
