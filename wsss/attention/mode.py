"""Runs edits while a network computes its attention; the network itself stays as it is.

Shape suffixes: B images, A heads, N tokens, D channels a head, C channels of a token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode, wrap_torch_function

from wsss.attention.edit import Call, Edit, Pass


def _tensors(weights_BANN: Tensor, value_BAND: Tensor, query_BAND: Tensor, key_BAND: Tensor) -> tuple[Tensor, ...]:
    return weights_BANN, value_BAND, query_BAND, key_BAND


@wrap_torch_function(_tensors)
def weigh(weights_BANN: Tensor, value_BAND: Tensor, query_BAND: Tensor, key_BAND: Tensor) -> Tensor:
    """The output of attention whose weights are computed already: ``weights @ value``.

    The explicit counterpart of ``F.scaled_dot_product_attention``, for weights that the fused kernel cannot make. A
    ``TorchFunctionMode``, such as the tape of class maps, sees the call as one function; a plain product of matrices
    would not show that it is attention.

    Args:
        weights_BANN: in [0, 1]; each row, of one query, sums to 1.
        value_BAND: values of the tokens.
        query_BAND: the queries of the weights; only recorded.
        key_BAND: the keys of the weights; only recorded.

    Returns:
        (B, A, N, D) in the dtype of the values.
    """
    return weights_BANN.to(value_BAND.dtype) @ value_BAND


def scale_and_bias(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[float, Tensor | None]:
    """What the arguments of a call of ``F.scaled_dot_product_attention`` make of the product of queries and keys.

    Returns:
        its factor, and what is added to it, in four dimensions; a bool mask becomes 0 and -inf.

    Raises:
        NotImplementedError: dropout, a causal mask or grouped heads.
    """
    if dropout_p > 0 or is_causal or enable_gqa:
        raise NotImplementedError("attention is read and edited without dropout, causal mask and grouped heads alone")
    bias = attn_mask
    if bias is not None:
        if bias.dtype == torch.bool:
            bias = torch.zeros_like(bias, dtype=torch.float32).masked_fill(~bias, -torch.inf)
        bias = bias[(None,) * (4 - bias.ndim)]
    return query.shape[-1] ** -0.5 if scale is None else scale, bias


class AttentionMode(TorchFunctionMode):
    """Edit the attention of each block while the context is open, in the thread that opened it.

    A call of ``F.scaled_dot_product_attention`` with as many queries as the pass has tokens is the call of the next
    block. Other calls (of a pooling head, or of one token that a block is run on again) are computed as they are.

    A tape that records the pass must be opened first: modes see a call from the inside out, so it records what is left
    after the edits.

    Args:
        edits: in the order in which they act.
        of: the pass.
        blocks: of the transformer, in order.
    """

    def __init__(self, edits: Sequence[Edit], of: Pass, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self._edits = [[edit for edit in edits if edit.acts_on(layer)] for layer in range(len(blocks))]
        self._of = of
        self._blocks = blocks
        self._layer = 0
        self._hooks = ExitStack()
        self._thread = threading.get_ident()

    def __enter__(self) -> AttentionMode:
        for layer, edits in enumerate(self._edits):
            if any(edit.overrides("channels") for edit in edits):
                mlp: Any = self._blocks[layer].mlp
                self._hooks.callback(mlp.register_forward_hook(partial(self._channels, layer)).remove)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.close()
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        if kind is None and self._layer != len(self._blocks):
            raise RuntimeError(f"{self._layer} calls of attention in {len(self._blocks)} blocks: edits need one each")

    def _channels(self, layer: int, mlp: nn.Module, inputs: tuple[Tensor, ...], output_BNC: Tensor) -> Tensor:
        if threading.get_ident() != self._thread:  # hooks belong to the module, which other threads may run too
            return output_BNC
        for edit in self._edits[layer]:
            output_BNC = edit.channels(output_BNC, layer, self._of)
        return output_BNC

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
        query, key, value = (
            args[place] if place < len(args) else kwargs[name] for place, name in enumerate(("query", "key", "value"))
        )
        if query.shape[2] != self._of.num_tokens:
            return func(*args, **kwargs)
        layer, self._layer = self._layer, self._layer + 1
        edits = self._edits[layer] if layer < len(self._edits) else []
        if not edits:
            return func(*args, **kwargs)
        return self._edited(edits, Call(layer, query, key, value, *scale_and_bias(*args, **kwargs)))

    def _edited(self, edits: Sequence[Edit], call: Call) -> Tensor:
        """The output of one block's attention."""
        for edit in edits:
            call = edit.call(call, self._of)
        query, key, value, bias = call.query_BAND, call.key_BAND, call.value_BAND, call.bias_BANN
        if not any(edit.overrides(moment) for edit in edits for moment in ("logits", "weights")):
            mask = None if bias is None else bias.to(query.dtype)
            return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=call.scale)
        with torch.autocast(query.device.type, enabled=False):
            logits_BANN = call.logits()
            for edit in edits:
                logits_BANN = edit.logits(logits_BANN, call, self._of)
            weights_BANN = logits_BANN.softmax(dim=-1)
            for edit in edits:
                weights_BANN = edit.weights(weights_BANN, call, self._of)
        return weigh(weights_BANN, value, query, key)
