"""The tape: attention with a bias or computed explicitly, blocks identified by hooks, refused and unrecorded calls."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.attention.mode import weigh
from wsss.errors import UsageError
from wsss.maps.affinity import spread
from wsss.maps.generate import class_maps, frozen
from wsss.maps.recorder import MapSettings, Recorder, check_map_settings
from wsss.maps.tape import Attention, AttentionTape
from wsss.models.network import Network, build_network

PRESENT = torch.tensor([[True, False, True], [False, True, False]])
HEADS, TOKENS = 3, 2 * 3 + 2
BIASES = {
    "of heads": torch.randn(1, HEADS, TOKENS, TOKENS, generator=torch.Generator().manual_seed(3)),
    "of keys": torch.randn(1, 1, 1, TOKENS, generator=torch.Generator().manual_seed(4)),
    "of two axes": torch.randn(TOKENS, TOKENS, generator=torch.Generator().manual_seed(5)),
    "mask": torch.rand(TOKENS, TOKENS, generator=torch.Generator().manual_seed(6)) < 0.7,
}
BIASES["mask"][:, 0] = True


@pytest.fixture
def network(small_network: Callable[..., Network]) -> Network:
    network = small_network(classes=("a", "b", "c"), decoder=False)
    torch.manual_seed(1)
    for block in network.backbone.vit.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.3)
    return network


def attend_with(
    network: Network, bias: Tensor, way: str, monkeypatch: pytest.MonkeyPatch, kept: list[Tensor] | None = None
) -> None:
    """Give every block attention with a bias: "fused", through `weigh` ("explicit"), or a product that keeps W."""

    def forward(attn: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
        batch, tokens, channels = x.shape
        q, k, v = attn.qkv(x).reshape(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if way == "fused":
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=0.7)
        else:
            added = torch.zeros(bias.shape).masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else bias
            weights = (0.7 * q @ k.transpose(-2, -1) + added).softmax(dim=-1)
            if kept is not None:
                kept.append(weights)
            out = weigh(weights, v, q, k) if way == "explicit" else weights @ v
        return attn.proj(out.transpose(1, 2).reshape(batch, tokens, channels))

    for block in network.backbone.vit.blocks:
        monkeypatch.setattr(block.attn, "forward", MethodType(forward, block.attn))


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("kind", BIASES)
@pytest.mark.parametrize("way", ["fused", "explicit"])
@pytest.mark.parametrize("rows", ["token", "both"])
def test_maps_equal_autograd_through_the_explicit_matrix(
    network: Network, monkeypatch: pytest.MonkeyPatch, way: str, kind: str, rows: str, steps: int
) -> None:
    images = torch.rand(2, 3, 16, 24)
    attend_with(network, BIASES[kind], way, monkeypatch)
    _, ours = class_maps(network, images, PRESENT, start_layer=1, rows=rows, spread=steps)  # type: ignore[arg-type]
    kept: list[Tensor] = []
    attend_with(network, BIASES[kind], "kept", monkeypatch, kept)
    theirs = torch.zeros_like(ours)
    for b, k in PRESENT.nonzero().tolist():
        kept.clear()
        gradients = torch.autograd.grad(network.classify(images[b : b + 1])[0, k], kept)
        row = torch.zeros(TOKENS)
        for weights, gradient in list(zip(kept, gradients, strict=True))[1:]:
            element = (weights * gradient).relu().mean(dim=1)[0] * gradient.relu().mean(dim=1)[0]
            row = row + element[0] + (element[2:].mean(dim=0) if rows == "both" else 0)
        map_M = row[2:].detach()
        affinity = sum(weights.detach().mean(dim=1)[0] for weights in kept)
        assert isinstance(affinity, Tensor)
        for _ in range(steps):
            map_M = affinity[2:, 2:] @ map_M / affinity[2:, 2:].sum(dim=1)
        theirs[b, k] = map_M.reshape(2, 3)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


def test_weigh_is_the_product() -> None:
    weights, value = torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3, 4, dtype=torch.float64)
    assert torch.equal(weigh(weights, value, value, value), weights.double() @ value)


def test_rows_and_carry_use_the_bias_and_the_weights() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, HEADS, TOKENS, 4) for _ in range(3))
    for bias in (BIASES["of heads"], BIASES["of keys"]):
        expected = (0.5 * q @ k.transpose(-2, -1) + bias).softmax(dim=-1)
        fused = Attention(q, k, v, v, 0.5, bias_BANN=bias)
        explicit = Attention(q, k, v, v, 1.0, weights_BANN=expected)
        for attention in (fused, explicit):
            torch.testing.assert_close(attention.rows(slice(2, 5)), expected[:, :, 2:5])
            torch.testing.assert_close(attention.carry(v), expected @ v)


def test_a_patch_that_attends_to_prefix_tokens_alone_spreads_nothing() -> None:
    """Its attention to patches is 0 in float32, so the normalisation must not divide 0 by 0."""
    query = torch.tensor([[[[1.0], [1.0], [1.0]]]])
    key = torch.tensor([[[[200.0], [0.0], [0.0]]]])
    maps_BKM = spread(torch.tensor([[[1.0, 0.5]]]), [Attention(query, key, key, key, 1.0)], 1)
    assert maps_BKM.tolist() == [[[0.0, 0.0]]]


class PoolsInBlock(nn.Module):
    """A block's MLP that also attends with one query, as a pooling head does."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.scaled_dot_product_attention(x[:, None, :1], x[:, None], x[:, None])[:, 0]
        return self.mlp(x) + 0 * pooled  # type: ignore[no-any-return]


def test_calls_on_other_tokens_or_outside_of_blocks_pass_unrecorded(network: Network) -> None:
    images = torch.rand(2, 3, 16, 24)
    _, plain = class_maps(network, images, PRESENT, spread=1)
    for block in network.backbone.vit.blocks:
        block.mlp = PoolsInBlock(block.mlp)
    settings = MapSettings(method="getam", start_layer=0, gamma=1, spread=1)
    with frozen(network), Recorder(network, settings) as recorder:
        x = torch.rand(1, 1, TOKENS, 4)
        assert torch.equal(F.scaled_dot_product_attention(x, x, x), F.scaled_dot_product_attention(x, x, x))
        features = network.features(images)
        logits_BK = network.readout(features)
    assert len(recorder.tape.attentions) == network.backbone.depth
    torch.testing.assert_close(recorder.maps(features, logits_BK, PRESENT).dense(), plain)
    for block in network.backbone.vit.blocks:
        assert not block._forward_hooks
        assert not block._forward_pre_hooks


def test_a_block_that_attends_twice_is_refused_by_name(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    attn = network.backbone.vit.blocks[1].attn
    once = attn.forward
    monkeypatch.setattr(attn, "forward", lambda *given, **options: once(*given, **options) - once(*given, **options))
    with pytest.raises(UsageError) as caught:
        class_maps(network, torch.rand(1, 3, 16, 24), PRESENT[:1])
    assert "deit_tiny_distilled_patch16_224: block 1 computes attention more than once" in caught.value.problem
    assert not network.backbone.vit.blocks[0]._forward_hooks


def test_a_block_without_a_recorded_call_is_an_error(network: Network) -> None:
    with AttentionTape(network.backbone.vit.blocks) as tape:
        network.backbone.vit.blocks[0](torch.rand(1, TOKENS, network.backbone.embed_dim))
    with pytest.raises(RuntimeError, match="no attention was recorded in block 1"):
        _ = tape.attentions


def test_differential_attention_is_refused_before_it_runs() -> None:
    vit = {"depth": 2, "embed_dim": 24, "num_heads": 3, "patch_size": 8, "img_size": 32}
    network = build_network("vit_dlittle_patch16_reg1_gap_256", ["a"], decoder=False, vit=vit)
    with pytest.raises(UsageError, match="vit_dlittle_patch16_reg1_gap_256: its blocks compute attention twice"):
        check_map_settings(network, MapSettings())


def test_rows_of_a_class_token_need_one(small_network: Callable[..., Network]) -> None:
    network = small_network("vit_base_patch16_siglip_gap_224", decoder=False)
    for rows in ("token", "both"):
        with pytest.raises(UsageError, match=f"maps.rows={rows}: vit_base_patch16_siglip_gap_224 has no class token"):
            check_map_settings(network, MapSettings(rows=rows))  # type: ignore[arg-type]
    check_map_settings(network, MapSettings(rows="pool"))
    with pytest.raises(UsageError, match=r"maps\.start_layer 9"):
        check_map_settings(network, MapSettings(start_layer=9))
