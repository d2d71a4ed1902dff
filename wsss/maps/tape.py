"""The one place where attention is seen: a tape of the calls of ``scaled_dot_product_attention``.

The model runs unpatched, on the fused kernels; the tape keeps each call's q, k, v and output. The gradient of a
logit y with respect to an attention matrix A then follows without the N x N matrix ever being made: with O = A V,

    dy/dA[i, j] = <dy/dO[i], V[j]>   per head, and   A[i] = softmax(scale * q_i K^T).

Shape suffixes: B images, A heads, N tokens (prefix tokens first), R rows asked for, D channels a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True, slots=True)
class Attention:
    """One recorded call; the output is part of the graph that leads to the logits."""

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
    ``start_layer``, so the blocks below cost no graph and no backward time; their attention is kept all the same.

    Attributes:
        attentions: one a call, in order; those from ``start_layer`` on can be asked for gradients.
    """

    def __init__(self, start_layer: int = 0) -> None:
        super().__init__()
        self.start_layer = start_layer
        self.attentions: list[Attention] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is not F.scaled_dot_product_attention:
            return result
        return self._record(result, *args, **kwargs)

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
        starts = len(self.attentions) >= self.start_layer
        if starts and torch.is_grad_enabled() and not output.requires_grad:
            output = output.detach().requires_grad_()
        self.attentions.append(
            Attention(query, key, value, output, query.shape[-1] ** -0.5 if scale is None else scale)
        )
        return output
