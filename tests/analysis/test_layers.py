"""Deletion and gain by hand, and maps of every range from one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsss.analysis.layers import alike, best_start, blank, deletions, gains
from wsss.maps.generate import forward_with_maps, frozen
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import MapSettings, Recorder
from wsss.models.network import Network
from wsss.sections import Method

Small = Callable[..., Any]


class Brightness(nn.Module):
    """A classifier whose logits are the sums of red and of green."""

    def classify(self, images_B3HW: Tensor) -> Tensor:
        return images_B3HW[:, :2].sum(dim=(2, 3))


def test_the_strongest_patches_get_the_mean_colour() -> None:
    image_13HW = torch.arange(48, dtype=torch.float32).reshape(1, 3, 4, 4)
    map_1hw = torch.tensor([[[0.1, 0.9], [0.2, 0.3]]])
    blanked = blank(image_13HW, map_1hw, share=0.25)
    mean_13 = image_13HW.mean(dim=(2, 3))
    assert torch.equal(blanked[:, :, :2, 2:], mean_13[:, :, None, None].expand(1, 3, 2, 2))
    same = torch.ones(4, 4, dtype=torch.bool)
    same[:2, 2:] = False
    assert torch.equal(blanked[..., same], image_13HW[..., same])
    assert (blank(image_13HW, map_1hw, share=0.5) != image_13HW).any(dim=1).sum() == 8
    assert torch.equal(blank(image_13HW, map_1hw, share=0)[..., same], image_13HW[..., same])  # at least one patch


def test_a_map_of_the_object_falls_further_than_its_complement() -> None:
    """Red stands in one quarter of the image, 4 pixels of 1; without it the sum of red is 4 pixels of the mean, 1/4."""
    image_13HW = torch.zeros(1, 3, 4, 4)
    image_13HW[:, 0, :2, :2] = 1
    present_BK = torch.tensor([[True, False]])
    inside_1hw = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    ranges = [PresentMaps.of(maps, present_BK) for maps in (inside_1hw, 1 - inside_1hw)]
    network = cast(Network, Brightness())
    logits_BK = network.classify(image_13HW)
    found_RL = deletions(network, image_13HW, logits_BK, ranges)
    assert found_RL.tolist() == [[pytest.approx(4 - 1), pytest.approx(-1)]]
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    assert deletions(network, image_13HW, logits_BK, [PresentMaps.of(inside_1hw[:0], nothing)] * 2).shape == (0, 2)


def test_deletions_are_those_of_each_class_and_image() -> None:
    image_23HW = torch.rand(2, 3, 4, 4)
    present_BK = torch.tensor([[True, True], [False, True]])
    maps = PresentMaps.of(torch.rand(3, 2, 2), present_BK)
    network = cast(Network, Brightness())
    found_RL = deletions(network, image_23HW, network.classify(image_23HW), [maps])
    for pair, (image, k) in enumerate([(0, 0), (0, 1), (1, 1)]):
        blanked = blank(image_23HW[image : image + 1], maps.values_Rhw[pair : pair + 1])
        fall = network.classify(image_23HW)[image, k] - network.classify(blanked)[0, k]
        assert found_RL[pair, 0].item() == pytest.approx(fall.item(), rel=1e-5)


def test_a_block_without_attention_gains_nothing(small_network: Small) -> None:
    """Nothing of what its attention returns reaches the tokens."""
    network = small_network(decoder=False)
    with torch.no_grad():
        for block in network.backbone.vit.blocks:
            block.attn.proj.weight[:] = 0
    images_B3HW, present_BK = torch.rand(2, 3, 32, 48), torch.tensor([[True, True], [False, True]])
    with torch.no_grad():
        logits_BK = network.classify(images_B3HW)
    assert torch.allclose(gains(network, images_B3HW, logits_BK, present_BK, "token"), torch.zeros(3, 4), atol=1e-6)


def test_gains_are_those_of_one_block_at_a_time(small_network: Small) -> None:
    network = small_network(decoder=False)
    with torch.no_grad():  # fresh weights hardly attend
        for block in network.backbone.vit.blocks:
            block.attn.qkv.weight[:] *= 20
    images_B3HW, present_BK = torch.rand(2, 3, 32, 48), torch.tensor([[True, True], [False, True]])
    with torch.no_grad():
        logits_BK = network.classify(images_B3HW)
    found_RL = gains(network, images_B3HW, logits_BK, present_BK, "token")
    assert found_RL.shape == (3, 4)
    assert (found_RL.abs() > 1e-5).all()
    assert network.edits == []


@pytest.mark.parametrize("method", ["attention-gradient", "getam", "chefer", "legrad", "rollout", "cam", "gradcam"])
@pytest.mark.parametrize("readout", ["project", "pool", "both"])
def test_ranges_from_one_pass_are_those_of_a_pass_each(method: Method, readout: str, small_network: Small) -> None:
    network = small_network(decoder=False, readout=readout)
    images_B3HW = torch.rand(3, 3, 32, 48)
    present_BK = torch.tensor([[True, True], [False, False], [False, True]])
    with frozen(network), torch.enable_grad():
        with Recorder(network, MapSettings(method=method, start_layer=1)) as recorder:
            features = network.features(images_B3HW)
            logits_BK = network.readout(features)
        ranges = recorder.maps_by_start(features, logits_BK, present_BK)
        assert len(ranges) == 3
        for start, ours in enumerate(ranges, 1):
            settings = MapSettings(method=method, start_layer=start)
            _, _, alone = forward_with_maps(network, images_B3HW, present_BK, settings)
            assert torch.allclose(ours.values_Rhw, alone.values_Rhw, rtol=1e-4, atol=1e-9)


def test_the_choice_by_hand() -> None:
    deletion_L = np.array([1.0, 1.9, 2.0, 1.94, 0.5])
    assert best_start(deletion_L) == 2
    assert alike(deletion_L) == [1, 2, 3]
    assert alike(np.array([-1.0, -0.99])) == [0, 1]
