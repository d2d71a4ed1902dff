"""The one place where attention is seen: a tape of the calls of ``scaled_dot_product_attention``.

The model runs unpatched, on the fused kernels; the tape keeps each call's q, k, v and output. The gradient of a
logit y with respect to an attention matrix A then follows without the N x N matrix ever being made: with O = A V,

    dy/dA[i, j] = <dy/dO[i], V[j]>   per head, and   A[i] = softmax(scale * q_i K^T).

Shape suffixes: B images, A heads, N tokens (prefix tokens first), R rows asked for, D channels a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True, slots=True)
class Attention:
    """One recorded call; the output, or its class token alone, is part of the graph that leads to the logits.

    Rows are float32 where autocast is off: it would make their products in half precision.
    """

    query_BAND: Tensor
    key_BAND: Tensor
    value_BAND: Tensor
    output_BAND: Tensor
    scale: float

    @property
    def num_tokens(self) -> int:
        """N, prefix tokens included."""
        return self.key_BAND.shape[2]

    def rows(self, rows: slice) -> Tensor:
        """Attention of some tokens: (B, A, R, N) float32, rows sum to 1."""
        query_BARD = self.query_BAND.detach()[:, :, rows].float()
        logits_BARN = query_BARD @ self.key_BAND.detach().float().transpose(-2, -1) * self.scale
        return logits_BARN.softmax(dim=-1)

    def gradient_rows(self, output_gradient_BAND: Tensor, rows: slice) -> Tensor:
        """Gradient of a scalar with respect to ``rows``, from its gradient at the output: (B, A, R, N) float32."""
        return output_gradient_BAND[:, :, rows].float() @ self.value_BAND.detach().float().transpose(-2, -1)


class AttentionTape(TorchFunctionMode):
    """Record attention while the context is open.

    Where nothing before asks for a gradient (frozen parameters), the graph begins at the output of block
    ``start_layer``, so the blocks below cost no graph and no backward time.

    Args:
        start_layer: the first block whose attention can be asked for gradients.
        below: whether the attention of the blocks below is kept too.

    Attributes:
        attentions: what is kept, one a call, in order.
    """

    def __init__(self, start_layer: int = 0, *, below: bool = True) -> None:
        super().__init__()
        self.start_layer = start_layer
        self.below = below
        self.attentions: list[Attention] = []
        self._calls = 0
        self._replayed: Tensor | None = None

    @property
    def from_start(self) -> list[Attention]:
        """Those from ``start_layer`` on."""
        return self.attentions[self.start_layer :] if self.below else self.attentions

    def narrow_start(self, block: nn.Module, inputs: tuple[Tensor, ...], tokens_BNC: Tensor) -> Tensor:
        """Forward hook of block ``start_layer``: begin the graph at the class token of its attention's output.

        Where only the class token's row is read, nothing asks for the gradient of the other tokens there; what
        follows attention in a block (projection, MLP) treats tokens alone, so their backward through it is saved. The
        block runs again on the class token, with its recorded output in place of attention.
        """
        attention = self.attentions[-1]
        begins_here = self._calls == self.start_layer + 1 and attention.output_BAND.is_leaf
        if not begins_here or not attention.output_BAND.requires_grad or block.training:
            return tokens_BNC
        class_BA1D = attention.output_BAND.detach()[:, :, :1].requires_grad_()
        self.attentions[-1] = replace(attention, output_BAND=class_BA1D)
        with self._replay(class_BA1D):
            class_B1C = block.forward(inputs[0][:, :1])
        return torch.cat([class_B1C, tokens_BNC.detach()[:, 1:]], dim=1)

    @contextmanager
    def _replay(self, output_BAND: Tensor) -> Iterator[None]:
        """Attention gives ``output_BAND`` inside, whatever it is asked."""
        self._replayed = output_BAND
        try:
            yield
        finally:
            self._replayed = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        if self._replayed is not None:
            return self._replayed
        return self._record(func(*args, **kwargs), *args, **kwargs)

    def _record(
        self,
        output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if attn_mask is not None or dropout_p > 0 or is_causal or enable_gqa:
            raise NotImplementedError("class maps need plain attention: no mask, dropout, causality or grouped heads")
        starts = self._calls >= self.start_layer
        self._calls += 1
        if starts and torch.is_grad_enabled() and not output.requires_grad:
            output = output.detach().requires_grad_()
        if starts or self.below:
            self.attentions.append(
                Attention(query, key, value, output, query.shape[-1] ** -0.5 if scale is None else scale)
            )
        return output
