"""Figures of heads: by hand on grids of a few patches, and the known heads of DeiT-Tiny."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsss.analysis.heads import (
    REACH,
    alignment,
    channel_gate,
    direction,
    distance,
    explaining_row,
    head_spread,
    object_patches,
    offsets,
    patch_attention,
    query_spread,
)
from wsss.data.dataset import open_data
from wsss.data.scaled import resize, scaled_size
from wsss.data.subsets import evenly
from wsss.maps.tape import Attention, AttentionTape
from wsss.models.network import build_network

GRIDS = [(2, 2), (3, 4), (1, 5), (6, 1), (3, 10)]


def uniform(grid: tuple[int, int]) -> Tensor:
    patches = grid[0] * grid[1]
    return torch.full((1, 1, patches, patches), 1 / patches)


def shift(grid: tuple[int, int], down: int, right: int) -> Tensor:
    """Each query looks at the patch so far away; at itself where that lies outside."""
    height, width = grid
    weights_MM = torch.zeros(height * width, height * width)
    for row in range(height):
        for column in range(width):
            there = (row + down, column + right)
            if not (0 <= there[0] < height and 0 <= there[1] < width):
                there = (row, column)
            weights_MM[row * width + column, there[0] * width + there[1]] = 1
    return weights_MM[None, None]


def test_distances_by_hand() -> None:
    assert distance(torch.eye(6)[None, None], (2, 3)).item() == 0
    assert distance(uniform((2, 2)), (2, 2)).item() == pytest.approx((2 + 2**0.5) / 4)
    assert distance(uniform((3, 4)), (3, 4)).item() == pytest.approx(0.6988, abs=5e-5)
    assert distance(uniform((1, 1)), (1, 1)).item() == 0


@pytest.mark.parametrize("grid", GRIDS)
def test_offsets_equal_a_loop(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weights_BAMM = torch.rand(2, 3, grid[0] * grid[1], grid[0] * grid[1]).softmax(dim=-1)
    found_BAOO = offsets(weights_BAMM, grid)
    places = [(m // grid[1], m % grid[1]) for m in range(grid[0] * grid[1])]
    for down in range(-REACH, REACH + 1):
        for right in range(-REACH, REACH + 1):
            there = [
                weights_BAMM[:, :, query, key]
                for query, at in enumerate(places)
                for key, to in enumerate(places)
                if (to[0] - at[0], to[1] - at[1]) == (down, right)
            ]
            ours_BA = found_BAOO[:, :, REACH + down, REACH + right]
            assert bool(ours_BA.isnan().all()) if not there else torch.allclose(ours_BA, torch.stack(there).mean(dim=0))


@pytest.mark.parametrize(
    ("where", "name"),
    [((0, 1), "right"), ((0, -1), "left"), ((-1, 0), "up"), ((1, 1), "down-right"), ((0, 0), "stays")],
)
def test_a_shift_has_its_name(where: tuple[int, int], name: str) -> None:
    assert direction(offsets(shift((4, 5), *where), (4, 5))[0, 0]) == (name, 1.0)


def test_attention_everywhere_has_no_name() -> None:
    assert direction(offsets(uniform((3, 4)), (3, 4))[0, 0]) == ("-", pytest.approx(1 / 12))
    assert (
        direction(offsets(shift((4, 5), 0, 2), (4, 5))[0, 0])[0] == "stays"
    )  # the two last columns have no such patch
    assert direction(offsets(uniform((1, 1)), (1, 1))[0, 0]) == ("stays", 1.0)


def test_spreads_by_hand() -> None:
    row_M = torch.tensor([0.7, 0.2, 0.1])
    assert query_spread(row_M.expand(1, 1, 3, 3)).item() == 0
    two_BAMM = torch.eye(2)[None, None]  # each query differs from the mean (1/2, 1/2) by 1/2
    assert query_spread(two_BAMM).item() == pytest.approx(0.5)
    heads_BAMM = torch.stack([torch.eye(2), torch.eye(2).flip(0)])[None]
    assert head_spread(heads_BAMM).tolist() == [[0.5, 0.5]]
    assert head_spread(torch.eye(2).expand(1, 3, 2, 2)).tolist() == [[0, 0, 0]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 4))
def test_figures_stay_in_their_ranges(seed: int, height: int, width: int) -> None:
    torch.manual_seed(seed)
    weights_BAMM = (5 * torch.randn(1, 2, height * width, height * width)).softmax(dim=-1)
    grid = (height, width)
    assert 0 <= distance(weights_BAMM, grid).min() <= distance(weights_BAMM, grid).max() <= 2**0.5
    for spread in (query_spread, head_spread):
        assert 0 <= spread(weights_BAMM).min() <= spread(weights_BAMM).max() <= 1


def test_prefix_tokens_do_not_count() -> None:
    """Two prefix tokens take 0.8 of every row; the patches of the third token share the rest, 3 to 1."""
    row_N = torch.tensor([0.5, 0.3, 0.15, 0.05])
    weights_BANN = row_N.expand(1, 1, 4, 4)
    values = torch.zeros(1, 1, 4, 2)
    attention = Attention(values, values, values, values, 1.0, weights_BANN=weights_BANN)
    assert torch.allclose(patch_attention(attention, 2), torch.tensor([[0.75, 0.25], [0.75, 0.25]])[None, None])
    assert torch.allclose(explaining_row(attention, 2, class_token=True), row_N[2:][None, None])
    assert torch.allclose(explaining_row(attention, 2, class_token=False), row_N[2:][None, None])


def test_alignment_by_hand() -> None:
    """60% of the mass are the patches of 0.4 and 0.3; the object is the first of them and another one: 1 of 3."""
    row_BAM = torch.tensor([[[0.4, 0.3, 0.2, 0.1]]])
    object_BM, known_BM = torch.tensor([[True, False, True, False]]), torch.ones(1, 4, dtype=torch.bool)
    assert alignment(row_BAM, object_BM, known_BM).item() == pytest.approx(1 / 3)
    assert alignment(7 * row_BAM, object_BM, known_BM).item() == pytest.approx(1 / 3)
    known_BM[0, 1] = False
    assert alignment(row_BAM, object_BM, known_BM).item() == pytest.approx(1 / 2)
    assert alignment(row_BAM, object_BM & False, known_BM).isnan().all()


def test_patches_of_objects() -> None:
    truth_HW = np.array([[1, 2, 0, 0], [3, 0, 0, 1], [255, 255, 255, 1], [255, 255, 0, 2]], np.uint8)
    object_M, known_M = object_patches(truth_HW, (2, 2))
    assert object_M.tolist() == [True, False, False, True]
    assert known_M.tolist() == [True, True, False, True]


def test_the_gate_by_hand() -> None:
    """Two patches, two channels: s of the first channel is (3/4, 1/4), of the second (1/2, 1/2); p = (5/8, 3/8)."""
    patches_BMC = torch.tensor([[[3.0, 1.0], [1.0, 1.0]]]).log()
    assert torch.allclose(channel_gate(patches_BMC), torch.tensor([[9 / 16, 1 / 2]]).sigmoid())
    equal_BMC = torch.zeros(1, 5, 3)
    assert torch.allclose(channel_gate(equal_BMC), torch.full((1, 3), 0.2).sigmoid())


@pytest.fixture
def deit_tiny_heads() -> Tensor:
    """Mean attention to each offset, (L, A, O, O), of ImageNet's DeiT-Tiny on 8 photos at 224 pixels."""
    weights, photos = (os.environ.get(name) for name in ("WSSS_WEIGHTS", "WSSS_VOC_ANIMALS"))
    if weights is None or photos is None:
        pytest.skip("WSSS_WEIGHTS and WSSS_VOC_ANIMALS are not both set")
    path = next(Path(weights).glob("deit_tiny_patch16_224*.safetensors"))
    network = build_network("deit_tiny_patch16_224", ["any"], str(path), decoder=False).eval()
    profiles = []
    for record in evenly(open_data(Path(photos), split="val").columns, 8):
        image_HW3 = torch.from_numpy(record.decode())
        height, width = scaled_size(*image_HW3.shape[:2], 224, (16, 16))
        with torch.inference_mode(), AttentionTape(network.backbone.vit.blocks) as tape:
            network.features(resize(image_HW3, (height, width))[None] / 255)
        with torch.inference_mode():
            weights = [patch_attention(attention, 1) for attention in tape.attentions]
            profiles.append(torch.stack([offsets(one, (height // 16, width // 16))[0] for one in weights]))
    return torch.stack(profiles).mean(dim=0)


@pytest.mark.real
def test_the_local_heads_of_deit_tiny(deit_tiny_heads: Tensor) -> None:
    """They stand in the first blocks. The shares were measured before on eight other photos."""
    found = {
        f"{block}.{head}": direction(of_head)
        for block, of_block in enumerate(deit_tiny_heads)
        for head, of_head in enumerate(of_block)
    }
    shares = {"1.2": ("left", 0.60), "2.0": ("down", 0.60), "2.1": ("right", 0.45), "3.2": ("up", 0.29)}
    for name, (where, share) in shares.items():
        assert found[name] == (where, pytest.approx(share, abs=0.03))
    assert found["0.2"][0] == "stays"
    assert found["1.0"][1] == pytest.approx(0.26, abs=0.03)  # stays, barely
    assert {name for name, (where, _) in found.items() if where != "-"} - {*shares, "0.2", "1.0"} == set()
