"""Records the attention of each block of a transformer while it runs.

The model runs unpatched, on the fused kernels. The tape keeps query, key, value and output of each block's call of
``F.scaled_dot_product_attention``, with its mask, or of `weigh`, with its weights. The gradient of a logit y with
respect to an attention matrix A then follows without making the N x N matrix: with O = A V,

    dy/dA[i, j] = <dy/dO[i], V[j]>   per head, and   A[i] = softmax(scale * q_i K^T + bias_i).

Shape suffixes: B images, A heads, N tokens (prefix tokens first), R rows asked for, C channels of a token, D channels a
head. The bias and the weights have the suffix BANN; the bias may have size 1 in any of these axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from wsss.attention.mode import scale_and_bias, weigh
from wsss.errors import UsageError


@dataclass(frozen=True, slots=True)
class Attention:
    """One recorded call; the output, or its class token alone, is part of the graph that leads to the logits.

    Rows are float32 where autocast is off; inside an autocast region their products would be in half precision.

    Attributes:
        query_BAND: queries.
        key_BAND: keys.
        value_BAND: values.
        output_BAND: what the call returned.
        scale: factor of the product of queries and keys.
        bias_BANN: added to the scaled product before the softmax; None where nothing is added.
        weights_BANN: the attention itself, where it was computed explicitly; scale and bias then have no meaning.
    """

    query_BAND: Tensor
    key_BAND: Tensor
    value_BAND: Tensor
    output_BAND: Tensor
    scale: float
    bias_BANN: Tensor | None = None
    weights_BANN: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """N, prefix tokens included."""
        return self.key_BAND.shape[2]

    def rows(self, rows: slice) -> Tensor:
        """Attention of some tokens: (B, A, R, N) float32, rows sum to 1."""
        if self.weights_BANN is not None:
            return self.weights_BANN.detach()[:, :, rows].float()
        query_BARD = self.query_BAND.detach()[:, :, rows].float()
        logits_BARN = query_BARD @ self.key_BAND.detach().float().transpose(-2, -1) * self.scale
        if self.bias_BANN is not None:
            bias_BANN = self.bias_BANN.detach().float()
            logits_BARN = logits_BARN + (bias_BANN if bias_BANN.shape[2] == 1 else bias_BANN[:, :, rows])
        return logits_BARN.softmax(dim=-1)

    def gradient_rows(self, output_gradient_BAND: Tensor, rows: slice) -> Tensor:
        """Gradient of a scalar with respect to ``rows``, from its gradient at the output: (B, A, R, N) float32."""
        return output_gradient_BAND[:, :, rows].float() @ self.value_BAND.detach().float().transpose(-2, -1)

    def carry(self, values_BAND: Tensor) -> Tensor:
        """The recorded attention applied to other values: (B, A, N, D) float32.

        Args:
            values_BAND: float32; as wide as the keys, which the fused kernels need.
        """
        if self.weights_BANN is not None:
            return self.weights_BANN.detach().float() @ values_BAND
        query_BAND, key_BAND = self.query_BAND.detach().float(), self.key_BAND.detach().float()
        bias_BANN = None if self.bias_BANN is None else self.bias_BANN.detach().float()
        return F.scaled_dot_product_attention(query_BAND, key_BAND, values_BAND, attn_mask=bias_BANN, scale=self.scale)


class AttentionTape(TorchFunctionMode):
    """Record the attention of blocks while the context is open.

    Forward hooks say which block runs. A call belongs to the block if its queries are all tokens of the block; other
    calls (of a pooling head, of a block that runs on fewer tokens) are computed and not recorded.

    Where no earlier parameter requires a gradient (`frozen`), the graph begins at the output of block ``start_layer``,
    so the blocks below need no graph and no backward.

    Args:
        blocks: of the transformer, in order.
        start_layer: the first block whose attention can be asked for gradients, from 0.
        below: whether the attention of the blocks below is kept too.
        name: of the backbone, for messages.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], start_layer: int = 0, *, below: bool = True, name: str = "the backbone"
    ) -> None:
        super().__init__()
        self.start_layer = start_layer
        self.below = below
        self._blocks = list(blocks)
        self._name = name
        self._hooks = ExitStack()
        self._recorded: dict[int, Attention] = {}
        self._layer: int | None = None
        self._num_tokens = 0
        self._calls = 0
        self._others = 0
        self._replayed: Tensor | None = None

    def __enter__(self) -> AttentionTape:
        for layer, block in enumerate(self._blocks):
            self._hooks.callback(block.register_forward_pre_hook(partial(self._enter_block, layer)).remove)
            self._hooks.callback(block.register_forward_hook(self._leave_block).remove)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._layer = None
        self._hooks.close()
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]

    def _enter_block(self, layer: int, block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._layer, self._num_tokens, self._calls, self._others = layer, inputs[0].shape[1], 0, 0

    def _leave_block(self, block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._layer = None

    @property
    def attentions(self) -> list[Attention]:
        """Those that are kept, one a block, in the order of the blocks.

        Raises:
            RuntimeError: a block ran without a call that could be recorded.
        """
        layers = range(0 if self.below else self.start_layer, len(self._blocks))
        missing = [layer for layer in layers if layer not in self._recorded]
        if missing:
            raise RuntimeError(f"{self._name}: no attention was recorded in block {missing[0]}")
        return [self._recorded[layer] for layer in layers]

    @property
    def from_start(self) -> list[Attention]:
        """Those from ``start_layer`` on."""
        return self.attentions[self.start_layer :] if self.below else self.attentions

    def narrow_start(self, block: nn.Module, inputs: tuple[Tensor, ...], tokens_BNC: Tensor) -> Tensor:
        """Forward hook of block ``start_layer``: begin the graph at the class token of its attention's output.

        Use it where only the class token's row is read: nothing then needs the gradient of the other tokens there. What
        follows attention in a block (projection, MLP) treats each token alone, so the backward of the others through it
        is saved. The block runs again on the class token, with its recorded output in the place of attention. A block
        with other calls of attention, which may mix tokens, is left as it is.
        """
        attention = self._recorded[self.start_layer]
        begins_here = attention.output_BAND.is_leaf and attention.output_BAND.requires_grad
        if not begins_here or block.training or self._others:
            return tokens_BNC
        class_BA1D = attention.output_BAND.detach()[:, :, :1].requires_grad_()
        self._recorded[self.start_layer] = replace(attention, output_BAND=class_BA1D)
        with self._replay(class_BA1D):
            class_B1C = block.forward(inputs[0][:, :1])
        return torch.cat([class_B1C, tokens_BNC.detach()[:, 1:]], dim=1)

    @contextmanager
    def _replay(self, output_BAND: Tensor) -> Iterator[None]:
        """Inside, every call of attention returns ``output_BAND``."""
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
        if func is not F.scaled_dot_product_attention and func is not weigh:
            return func(*args, **kwargs)
        if self._replayed is not None:
            return self._replayed
        output = func(*args, **kwargs)
        call = (explicit_call if func is weigh else fused_call)(output, *args, **kwargs)
        if self._layer is None or call.query_BAND.shape[2] != self._num_tokens:
            self._others += 1
            return output
        return self._record(self._layer, call)

    def _record(self, layer: int, call: Attention) -> Tensor:
        self._calls += 1
        if self._calls > 1:
            raise UsageError(
                f"{self._name}: block {layer} computes attention more than once; class maps need one call a block",
                "wsss backbones  # those that class maps can be read from",
            )
        starts = layer >= self.start_layer
        if starts and torch.is_grad_enabled() and not call.output_BAND.requires_grad:
            call = replace(call, output_BAND=call.output_BAND.detach().requires_grad_())
        if starts or self.below:
            self._recorded[layer] = call
        return call.output_BAND


def explicit_call(output: Tensor, weights: Tensor, value: Tensor, query: Tensor, key: Tensor) -> Attention:
    """The record of a call of `weigh`."""
    return Attention(query, key, value, output, 1.0, weights_BANN=weights)


def fused_call(output: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Attention:
    """The record of a call of ``F.scaled_dot_product_attention``; see `scale_and_bias` for what it refuses."""
    return Attention(query, key, value, output, *scale_and_bias(query, key, value, *args, **kwargs))
