"""Ways to read a class out of a transformer, all behind one name.

Each method is a function of a ``Reading`` (one forward pass, recorded) and, where it needs them, the gradients of
the chosen logits at the recorded outputs. All but CAM and grad-CAM return a row over the N tokens. Which row explains
the class depends on the tokens that the head reads: the class token's row, the mean over the patches' rows, or their
sum. Values are made per block and head (`element_rows`); a reduction over heads, a sum over blocks and the choice of
rows follow as steps of their own.

Shape suffixes: B images, K classes, A heads, N tokens (P prefix tokens first), R rows, h x w patch grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import mul
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.maps.bipartition import object_side
from wsss.maps.tape import Attention

ROW_CHUNK = 256
"""Rows of an attention matrix that are made at a time where the rows of all patches are read."""

CLASS_ROW = slice(0, 1)

OBJECT_BLOCK = -3
"""Block whose keys tell objects from the background, from the last: later ones of DeiT-Tiny do so less."""

Elements = tuple[Tensor, ...]
"""Values of the elements of an attention matrix, each (B, A, R, N): per head, of one block."""


@dataclass(frozen=True, slots=True)
class Coupling:
    """How attention and its gradient become one value an element: per head first, then reduced over the heads.

    Attributes:
        elements: (attention, its gradient), both (B, A, R, N), to values of the same shape.
        over_heads: these values to (B, R, N).
    """

    elements: Callable[[Tensor, Tensor], Elements]
    over_heads: Callable[[Elements], Tensor]

    def __call__(self, attention_BARN: Tensor, gradient_BARN: Tensor) -> Tensor:
        """(B, R, N)."""
        return self.over_heads(self.elements(attention_BARN, gradient_BARN))


@dataclass(slots=True)
class Reading:
    """One recorded forward pass.

    Attributes:
        attentions: of the blocks from the start layer on.
        num_prefix_tokens: P.
        fed: rows to read.
        coupling: GETAM's, "released" or "paper".
        features_BNC: tokens that grad-CAM weighs; None for other methods.
    """

    attentions: list[Attention]
    num_prefix_tokens: int
    fed: Literal["token", "pool", "both"]
    coupling: Literal["released", "paper"]
    features_BNC: Tensor | None = None
    _class_rows: dict[int, Tensor] = field(default_factory=dict)

    def rows(self, layer: int, rows: slice) -> Tensor:
        """Attention of some tokens in one recorded layer, (B, A, R, N); that of the class token is computed once."""
        if rows != CLASS_ROW:
            return self.attentions[layer].rows(rows)
        if layer not in self._class_rows:
            self._class_rows[layer] = self.attentions[layer].rows(rows)
        return self._class_rows[layer]


def positive_influence(attention_BARN: Tensor, gradient_BARN: Tensor) -> Elements:
    """relu(G A)."""
    return ((gradient_BARN * attention_BARN).relu(),)


def influence_and_gradient(attention_BARN: Tensor, gradient_BARN: Tensor) -> Elements:
    """relu(G A) and relu(G)."""
    return (gradient_BARN * attention_BARN).relu(), gradient_BARN.relu()


def attention_and_gradient(attention_BARN: Tensor, gradient_BARN: Tensor) -> Elements:
    """A and G."""
    return attention_BARN, gradient_BARN


def product_of_means(elements: Elements) -> Tensor:
    """The mean over heads of each of the values, multiplied."""
    return reduce(mul, [values_BARN.mean(dim=1) for values_BARN in elements])


def positive_product_of_means(elements: Elements) -> Tensor:
    """relu(mean_a A * mean_a G) * relu(mean_a G)."""
    attention_BRN, gradient_BRN = (values_BARN.mean(dim=1) for values_BARN in elements)
    return (attention_BRN * gradient_BRN).relu() * gradient_BRN.relu()


released_coupling = Coupling(influence_and_gradient, product_of_means)
"""GETAM as the authors' code has it: mean_a relu(G A) * mean_a relu(G)."""

paper_coupling = Coupling(attention_and_gradient, positive_product_of_means)
"""GETAM as the paper's text has it: relu(mean_a A * mean_a G) * relu(mean_a G)."""

attention_gradient = Coupling(positive_influence, product_of_means)
"""Attention weighted by its positive influence: mean_a relu(G A)."""

COUPLINGS = {"released": released_coupling, "paper": paper_coupling}


def getam(reading: Reading, gradients_BAND: list[Tensor]) -> Tensor:
    """Gradient-weighted element-wise transformer attention map, summed over layers (arXiv 2112.02841)."""
    return _sum_over_layers(reading, gradients_BAND, COUPLINGS[reading.coupling])


def attention_gradient_map(reading: Reading, gradients_BAND: list[Tensor]) -> Tensor:
    """Attention times gradient, summed over layers."""
    return _sum_over_layers(reading, gradients_BAND, attention_gradient)


def attention_map(reading: Reading) -> Tensor:
    """Attention averaged over heads, summed over layers; the same for every class."""
    return _explaining_row(reading, lambda layer, rows: reading.rows(layer, rows).mean(dim=1))


def objects(reading: Reading) -> Tensor:
    """1 on the patches of the object, found without any label, else 0; the same for every class.

    By the keys of block ``OBJECT_BLOCK``, and by its explaining row of attention; see ``bipartition.object_side``.
    """
    layer = max(-len(reading.attentions), OBJECT_BLOCK) % len(reading.attentions)
    key_BNC = reading.attentions[layer].key_BAND.detach().transpose(1, 2).flatten(2)
    row_BN = _read_rows(reading, lambda rows: reading.rows(layer, rows).mean(dim=1))
    first = reading.num_prefix_tokens
    return F.pad(object_side(key_BNC[:, first:], row_BN[:, first:]), (first, 0))


def rollout(reading: Reading) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020): product of (A + I) / 2 over layers; the same for every class."""
    return _roll(reading, lambda attention: 0.5 * attention.rows(slice(None)).mean(dim=1), keep=0.5)


def chefer(reading: Reading, gradients_BAND: list[Tensor]) -> Tensor:
    """Gradient-weighted rollout (Chefer et al. 2021): R <- R + mean_a relu(G A) R over layers."""
    gradient_of = dict(zip(map(id, reading.attentions), gradients_BAND, strict=True))

    def step(attention: Attention) -> Tensor:
        every = slice(None)
        return attention_gradient(attention.rows(every), attention.gradient_rows(gradient_of[id(attention)], every))

    return _roll(reading, step, keep=1.0)


def legrad(reading: Reading, gradients_BAND: list[Tensor]) -> Tensor:
    """LeGrad (Bousselham et al. 2024, arXiv 2404.03214): the positive gradient of attention, without attention itself.

    Args:
        reading: the recorded pass.
        gradients_BAND: of each block, those of the logit that the head gives to the tokens right after that block.

    Returns:
        (B, N): the mean over heads and over the rows of all tokens, summed over blocks.
    """
    rows_BN = []
    for attention, gradient_BAND in zip(reading.attentions, gradients_BAND, strict=True):
        count = attention.num_tokens
        chunks = [slice(at, min(at + ROW_CHUNK, count)) for at in range(0, count, ROW_CHUNK)]
        sums = [attention.gradient_rows(gradient_BAND, rows).relu().mean(dim=1).sum(dim=1) for rows in chunks]
        rows_BN.append(torch.stack(sums).sum(dim=0) / count)
    return torch.stack(rows_BN).sum(dim=0)


def gradcam(features_BNC: Tensor, gradient_BNC: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) on the tokens before the last attention, (B, patch tokens)."""
    weights_BC = gradient_BNC.float().mean(dim=1)
    return torch.einsum("bnc,bc->bn", features_BNC.detach().float(), weights_BC).relu()


CLASS_AGNOSTIC: dict[str, Callable[[Reading], Tensor]] = {
    "attention": attention_map,
    "rollout": rollout,
    "objects": objects,
}
BY_GRADIENT: dict[str, Callable[[Reading, list[Tensor]], Tensor]] = {
    "getam": getam,
    "attention-gradient": attention_gradient_map,
    "chefer": chefer,
    "legrad": legrad,
}


def element_rows(
    reading: Reading, gradients_BAND: list[Tensor], coupling: Coupling, layer: int, rows: slice
) -> Elements:
    """The values of one block, of each head, in some rows: what is reduced over heads, rows and blocks afterwards."""
    gradient_BARN = reading.attentions[layer].gradient_rows(gradients_BAND[layer], rows)
    return coupling.elements(reading.rows(layer, rows), gradient_BARN)


def _sum_over_layers(reading: Reading, gradients_BAND: list[Tensor], coupling: Coupling) -> Tensor:
    def reduced_rows(layer: int, rows: slice) -> Tensor:
        return coupling.over_heads(element_rows(reading, gradients_BAND, coupling, layer, rows))

    return _explaining_row(reading, reduced_rows)


def _explaining_row(reading: Reading, rows_of: Callable[[int, slice], Tensor]) -> Tensor:
    """Sum over layers of the row that explains the class, (B, N)."""
    layers = range(len(reading.attentions))
    return torch.stack([_read_rows(reading, partial(rows_of, layer)) for layer in layers]).sum(dim=0)


def _read_rows(reading: Reading, rows: Callable[[slice], Tensor]) -> Tensor:
    """The class token's row, the mean over the patches' rows, or their sum, (B, N)."""
    num_tokens = reading.attentions[0].num_tokens
    first = reading.num_prefix_tokens
    parts: list[Tensor] = []
    if reading.fed in ("token", "both"):
        parts.append(rows(CLASS_ROW)[:, 0])
    if reading.fed in ("pool", "both"):
        chunks = range(first, num_tokens, ROW_CHUNK)
        sums = [rows(slice(at, min(at + ROW_CHUNK, num_tokens))).sum(dim=1) for at in chunks]
        parts.append(torch.stack(sums).sum(dim=0) / (num_tokens - first))
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _roll(reading: Reading, step: Callable[[Attention], Tensor], keep: float) -> Tensor:
    """The explaining row of the product over layers of (keep * I + step), from the last layer down, (B, N)."""
    last = reading.attentions[-1]
    start_N = torch.zeros(last.num_tokens, device=last.key_BAND.device)
    if reading.fed in ("token", "both"):
        start_N[0] = 1.0
    if reading.fed in ("pool", "both"):
        first = reading.num_prefix_tokens
        start_N[first:] += 1.0 / (last.num_tokens - first)
    row_BN = start_N.expand(last.key_BAND.shape[0], -1)
    for attention in reversed(reading.attentions):
        row_BN = keep * row_BN + torch.einsum("bn,bnm->bm", row_BN, step(attention))
    return row_BN
