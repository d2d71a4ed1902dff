"""What each learned edit computes: by hand, or against a loop over the formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.attention.channel_gate import ChannelGate, channel_gates
from wsss.attention.edit import Call, Pass
from wsss.attention.evolving import Evolving
from wsss.attention.object_aware import ObjectAware, guide_distance
from wsss.attention.sparse import Sparse
from wsss.sections import EditName, EditSection


def section(name: EditName, *, control: bool = False) -> EditSection:
    return EditSection(name=name, control=control)


def a_pass(grid: tuple[int, int] = (1, 2), prefix: int = 1) -> Pass:
    return Pass(torch.zeros(1, 3, 8, 8), grid, prefix)


def a_call(query_BAND: Tensor, key_BAND: Tensor | None = None, layer: int = 0) -> Call:
    return Call(layer, query_BAND, query_BAND if key_BAND is None else key_BAND, query_BAND, 1.0)


def test_gates_by_hand() -> None:
    """Two patches: both channels prefer the first by odds of 3, a third prefers the second."""
    odds = math.log(3)
    patches = torch.tensor([[odds, odds, 0.0], [0.0, 0.0, odds]])[None]
    share_1, share_2 = (0.75 + 0.75 + 0.25) / 3, (0.25 + 0.25 + 0.75) / 3
    agree, differ = 2 * (0.75 * share_1 + 0.25 * share_2), 2 * (0.25 * share_1 + 0.75 * share_2)
    expected = [2 / (1 + math.exp(1 - each)) - 1 for each in (agree, agree, differ)]
    assert channel_gates(patches)[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert channel_gates(torch.full((1, 7, 3), 2.0)).abs().max() < 1e-6  # even channels: no gate


def test_a_gate_multiplies_all_tokens_and_one_alone_has_the_gate_of_its_pass() -> None:
    edit, of = ChannelGate(range(1), 1, section("channel-gate")), a_pass()
    output = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(edit.channels(output, 0, of), output)
    torch.nn.init.constant_(edit.strength_L, 0.5)
    expected = output * (1 + 0.5 * channel_gates(output[:, 1:]))[:, None]
    torch.testing.assert_close(edit.channels(output, 0, of), expected)
    torch.testing.assert_close(edit.channels(output[:, :1], 0, of), expected[:, :1])
    control = ChannelGate(range(1), 1, section("channel-gate", control=True))
    torch.nn.init.constant_(control.strength_L, 0.5)
    torch.testing.assert_close(control.channels(output, 0, a_pass()), 1.5 * output)


def evolve(edit: Evolving, first: Tensor, second: Tensor, of: Pass) -> tuple[Tensor, Tensor]:
    call = a_call(torch.zeros(1, first.shape[1], first.shape[2], 4))
    one = edit.logits(first, call, of)
    return one, edit.logits(second, Call(1, call.query_BAND, call.key_BAND, call.value_BAND, 1.0), of)


def test_logits_of_two_blocks_evolve_by_hand() -> None:
    """One head, one prefix token, two patches; the convolution doubles its input."""
    first = torch.tensor([[9.0, 9, 9], [9, 1, -2], [9, 3, 4]])[None, None]
    second = torch.tensor([[8.0, 8, 8], [8, 5, 6], [8, 7, -8]])[None, None]
    edit = Evolving(range(2), 1, section("evolving"))
    assert all(torch.equal(*pair) for pair in zip(evolve(edit, first, second, a_pass()), (first, second), strict=True))
    for convolution in edit.convolutions:
        torch.nn.init.zeros_(convolution.weight)
        torch.nn.init.zeros_(convolution.bias)
        convolution.weight.data[0, 0, 1, 1] = 2
    edit.mix_L.data[:] = 0.25
    edit.refine_L.data[:] = 0.5
    of = a_pass()
    one, two = evolve(edit, first, second, of)
    assert one[0, 0].tolist() == [[9, 9, 9], [9, 1.5, -1], [9, 4.5, 6]]  # x + (max(2 x, 0) - x) / 2
    mixed = [[5 + (1.5 - 5) / 4, 6 + (-1 - 6) / 4], [7 + (4.5 - 7) / 4, -8 + (6 + 8) / 4]]
    evolved = [[1.5 * value if value > 0 else value / 2 for value in row] for row in mixed]
    assert two[0, 0, 1:, 1:].tolist() == evolved
    assert two[0, 0, 0].tolist() == [8, 8, 8]
    assert of.memory == {}  # nothing N x N outlives the last edited block


def test_the_control_of_evolving_mixes_alone() -> None:
    edit = Evolving(range(2), 1, section("evolving", control=True))
    assert [name for name, _ in edit.named_parameters()] == ["mix_L"]
    edit.mix_L.data[:] = 0.25
    first, second = torch.rand(2, 1, 1, 3, 3)
    one, two = evolve(edit, first, second, a_pass())
    assert torch.equal(one, first)
    torch.testing.assert_close(two[..., 1:, 1:], 0.75 * second[..., 1:, 1:] + 0.25 * first[..., 1:, 1:])


@pytest.mark.parametrize("control", [False, True])
def test_sparse_weights_equal_a_loop_over_the_formula(control: bool) -> None:
    random = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 2, 5, 4, generator=random)
    weights = (4 * torch.randn(1, 2, 5, 5, generator=random)).softmax(dim=-1)
    edit = Sparse(range(1), 2, section("sparse", control=control))
    torch.testing.assert_close(edit.weights(weights, a_call(query, key), a_pass((2, 2))), weights)
    edit.rate_LA.data = torch.tensor([[0.5, -2.0]])
    if not control:
        edit.threshold_LA.data = torch.tensor([[3.0, 1.0]])
    expected = weights.clone()
    q, k = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    for a, rate in enumerate((0.5, -2.0)):
        for _ in range(1 if control else 3):
            step = expected[0, a] @ (k[0, a] @ k[0, a].T) - q[0, a] @ k[0, a].T
            least = 0.0 if control else abs(rate) * math.log1p(math.exp((3.0, 1.0)[a] - 6))
            moved = (expected[0, a] - rate * step / 5 - least).clamp_min(0)
            expected[0, a] = moved / moved.sum(dim=1, keepdim=True)
    found = edit.weights(weights, a_call(query, key), a_pass((2, 2)))
    torch.testing.assert_close(found, expected)
    if not control:
        assert bool((found == 0).any())


def test_rows_that_the_threshold_empties_have_finite_gradients() -> None:
    edit = Sparse(range(1), 1, section("sparse"))
    edit.rate_LA.data[:], edit.threshold_LA.data[:] = 5.0, 6.0
    weights = torch.full((1, 1, 3, 3), 1 / 3, requires_grad=True)
    found = edit.weights(weights, a_call(torch.randn(1, 1, 3, 4)), a_pass())
    found.sum().backward()
    assert found.abs().max() == 0
    assert all(torch.isfinite(one.grad).all() for one in (weights, edit.rate_LA, edit.threshold_LA))  # type: ignore[arg-type]


def test_distances_of_guides_by_hand() -> None:
    """Three patches in a row: all background, all of class 1, half of each."""
    shares = torch.tensor([[[1.0, 0.0, 0.5]], [[0.0, 1.0, 0.5]]])[None]
    distance = [[0, 1, 0.5], [1, 0, 0.5], [0.5, 0.5, 0]]
    assert guide_distance(shares, (1, 3), widest=False)[0].tolist() == distance
    assert guide_distance(shares.repeat_interleave(4, dim=3), (1, 3), widest=False)[0].tolist() == distance
    dark = shares * 0.25
    assert guide_distance(dark, (1, 3), widest=True)[0].tolist() == distance
    assert guide_distance(torch.full((1, 3, 1, 3), 0.4), (1, 3), widest=True).abs().max() == 0


def test_a_strength_multiplies_weights_by_the_exponential_of_the_distance() -> None:
    edit = ObjectAware(range(2), 1, EditSection(name="object-aware", guide="labels")).eval()
    of = Pass(torch.zeros(1, 3, 8, 24), (1, 3), 1, torch.tensor([[[1.0, 0.0, 0.5]], [[0.0, 1.0, 0.5]]])[None])
    assert not edit.call(a_call(torch.zeros(1, 1, 4, 4)), of).logits().any()  # before the warm-up
    edit.warm_up(1.0)
    edit.warm_up(0.5)  # of a second training: what was reached stays
    edit.raw_L.data[1] = math.log(math.expm1(3.0))
    query, key = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    distance = F.pad(guide_distance(of.guide_BKhw, (1, 3), widest=False), (1, 0, 1, 0))  # type: ignore[arg-type]
    for layer, strength in ((0, 1.0), (1, 3.0)):
        call = a_call(query, key, layer)
        expected = call.logits().softmax(dim=-1) * (-strength * distance).exp()
        found = edit.call(call, of).logits().softmax(dim=-1)
        torch.testing.assert_close(found, expected / expected.sum(dim=-1, keepdim=True))
    bare = Pass(of.images_B3HW, of.grid, 1)
    assert edit.call(a_call(query, key), bare).bias_BANN is None  # no guide, no bias


def test_half_of_the_guides_are_dropped_and_parts_drop_as_the_batch_does() -> None:
    edit = ObjectAware(range(1), 1, EditSection(name="object-aware"))
    edit.warm_up(1.0)
    images = torch.rand(64, 3, 4, 8, generator=torch.Generator().manual_seed(0))

    def dropped(some: Tensor) -> list[bool]:
        torch.manual_seed(0)
        bias = edit.call(a_call(torch.zeros(len(some), 1, 3, 4)), Pass(some, (1, 2), 1)).bias_BANN
        assert bias is not None
        return (bias == 0).flatten(1).all(dim=1).tolist()

    whole = dropped(images)
    assert 20 < sum(whole) < 44
    parts = []
    for edit.part in range(2):
        edit.parts = 2
        parts += dropped(images[32 * edit.part : 32 * edit.part + 32])
    assert parts == whole
    edit.eval()
    assert not any(dropped(images))


def test_the_control_learns_with_the_guide_of_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsss.attention.object_aware.KEPT", 1.0)
    images = (
        torch.rand(2, 3, 4, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0])[:, None, None, None]
    )
    control = ObjectAware(range(1), 1, EditSection(name="object-aware", control=True))
    control.warm_up(1.0)
    call = a_call(torch.zeros(2, 1, 3, 4))
    bias = control.call(call, Pass(images, (1, 2), 1)).bias_BANN
    assert bias is not None
    assert bias[0].abs().max() == 0  # the other image is black
    assert bias[1].abs().max() > 0
    assert control.eval().call(call, Pass(images, (1, 2), 1)).bias_BANN is None
