"""Explicit attention in a form that torch function modes can see.

Shape suffixes: B images, A heads, N tokens, D channels a head.
"""

from __future__ import annotations

from torch import Tensor
from torch.overrides import wrap_torch_function


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
