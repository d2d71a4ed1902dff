"""Spreading by attention: by hand, against the N x N matrix, and properties that always hold."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from wsss.maps.affinity import spread
from wsss.maps.generate import class_maps
from wsss.maps.tape import Attention


def random_attention(batch: int, heads: int, tokens: int) -> Attention:
    q, k, v = (torch.randn(batch, heads, tokens, 6) for _ in range(3))
    return Attention(q, k, v, v, 6**-0.5)


def test_equals_the_explicit_matrix() -> None:
    torch.manual_seed(0)
    attentions = [random_attention(2, 3, 9) for _ in range(4)]
    maps = torch.rand(2, 5, 7)  # two prefix tokens
    affinity = torch.stack([a.rows(slice(None)).mean(dim=1) for a in attentions]).sum(dim=0)[:, 2:, 2:]
    affinity = affinity / affinity.sum(dim=-1, keepdim=True)
    once = torch.einsum("bij,bkj->bki", affinity, maps)
    twice = torch.einsum("bij,bkj->bki", affinity, once)
    torch.testing.assert_close(spread(maps, attentions, 2, 1), once, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(spread(maps, attentions, 2, 2), twice, rtol=1e-5, atol=1e-6)
    assert torch.equal(spread(maps, attentions, 2, 0), maps)


def test_more_maps_than_channels_a_head_and_always_the_fused_kernel() -> None:
    torch.manual_seed(2)
    attentions = [random_attention(2, 3, 9)]  # 6 channels a head
    maps = torch.rand(2, 14, 8)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # the math kernel, which makes the N x N matrix, is not allowed
        together = spread(maps, attentions, 1)
    alone = torch.cat([spread(maps[:, k : k + 1], attentions, 1) for k in range(14)], dim=1)
    torch.testing.assert_close(together, alone)


def test_two_patches_by_hand() -> None:
    """Patch 0 attends equally to both patches, patch 1 to itself three times as much as to patch 0."""
    query = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    key = torch.tensor([[[[0.0, 0.0], [0.0, torch.log(torch.tensor(3.0))]]]])
    attention = Attention(query, key, key, key, 1.0)
    spread_out = spread(torch.tensor([[[4.0, 0.0]]]), [attention], 0)
    torch.testing.assert_close(spread_out, torch.tensor([[[2.0, 1.0]]]))


def test_constant_maps_stay_and_nothing_leaves_the_range() -> None:
    torch.manual_seed(1)
    attentions = [random_attention(1, 2, 11)]
    torch.testing.assert_close(spread(torch.full((1, 2, 10), 0.3), attentions, 1, 3), torch.full((1, 2, 10), 0.3))
    maps = torch.rand(1, 2, 10)
    out = spread(maps, attentions, 1, 2)
    assert out.min() >= maps.min()
    assert out.max() <= maps.max()


def test_class_maps_spread_what_they_made(small_network) -> None:  # type: ignore[no-untyped-def]
    network = small_network(classes=("a", "b"), decoder=False)
    images, present = torch.rand(2, 3, 24, 40), torch.tensor([[True, False], [True, True]])
    _, plain = class_maps(network, images, present, start_layer=2)
    _, whole = class_maps(network, images, present, start_layer=2, spread=1)
    assert whole[0, 1].abs().sum() == 0
    assert whole[0, 0].std() < plain[0, 0].std()
    _, rooted = class_maps(network, images, present, start_layer=2, gamma=0.5)
    torch.testing.assert_close(rooted, plain.sqrt())
