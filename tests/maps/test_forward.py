"""One forward for maps, decoder and loss: groups of images by number of tags, start of the graph, what is stored."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from wsss.config import Method
from wsss.maps.generate import forward_with_maps, frozen, multiscale_scores, read_maps
from wsss.maps.recorder import MapSettings, Recorder
from wsss.models.averaged import LabelProbabilities, decoder_grid, log_label_probabilities
from wsss.models.network import Network

CLASSES = ("a", "b", "c")
PRESENT = torch.tensor([[1, 1, 1], [0, 1, 0], [1, 1, 1], [0, 0, 0], [0, 0, 1]], dtype=torch.bool)


@pytest.fixture
def network(small_network: Callable[..., Network]) -> Network:
    network = small_network(classes=CLASSES)
    torch.manual_seed(1)
    for block in network.backbone.vit.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.3)
    for weight in (network.require_decoder().classify.weight, network.require_decoder().coarse.patch.weight):
        torch.nn.init.normal_(weight, std=0.3)  # decoders start at 0
    return network


def test_groups_change_neither_features_nor_gradients(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsss.maps.passes.PASS_OVERHEAD", {"cpu": 0.1})
    images = torch.rand(5, 3, 24, 40)
    features, logits_BK, maps = forward_with_maps(
        network, images, PRESENT, MapSettings(spread=1), taps=True, keep_graph=True
    )
    plain = network.features(images, taps=True)
    torch.testing.assert_close(logits_BK, network.readout(plain))
    for (ours, token), (theirs, other) in zip(features.taps, plain.taps, strict=True):
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(token, other)
    assert not maps.values_Rhw.requires_grad
    assert (maps.dense().amax(dim=(2, 3)) > 0).equal(PRESENT)

    def gradients(features: Any, logits_BK: torch.Tensor) -> tuple[torch.Tensor, ...]:
        loss = network.decode(features, (24, 40)).square().mean() + logits_BK.square().mean()
        return torch.autograd.grad(loss, [*network.parameters()], allow_unused=True)

    expected = gradients(plain, network.readout(plain))
    torch.testing.assert_close(gradients(features, logits_BK), expected, rtol=1e-4, atol=1e-6)
    assert sum(gradient is not None for gradient in expected) > 50


def test_the_graph_begins_at_the_class_token_where_its_row_is_read(network: Network) -> None:
    """With parameters that require gradients, or with other rows, the graph begins earlier."""

    def begun(readings: MapSettings) -> int:
        with Recorder(network, readings) as recorder:
            logits_BK = network.classify(torch.rand(2, 3, 16, 24))
        assert torch.autograd.grad(logits_BK.sum(), recorder.tape.from_start[0].output_BAND)[0].abs().max() > 0
        return recorder.tape.from_start[0].output_BAND.shape[2]

    tokens = 2 * 3 + 2
    with frozen(network):
        assert begun(MapSettings(start_layer=1)) == 1
        assert begun(MapSettings(start_layer=1, rows="both")) == tokens
        assert begun(MapSettings(start_layer=1, method="chefer")) == tokens
        network.train()
        assert begun(MapSettings(start_layer=1)) == tokens
        network.eval()
    assert begun(MapSettings(start_layer=1)) == tokens
    assert not any(block._forward_hooks for block in network.backbone.vit.blocks)


def test_blocks_below_the_start_are_kept_for_spreading_alone(network: Network) -> None:
    kept = {}
    for steps in (0, 1):
        with frozen(network), Recorder(network, MapSettings(start_layer=3, spread=steps)) as recorder:
            network.classify(torch.rand(1, 3, 16, 16))
        kept[steps] = len(recorder.tape.attentions), len(recorder.tape.from_start)
    assert kept == {0: (1, 1), 1: (4, 1)}


@pytest.mark.parametrize("flip", [False, True])
def test_the_decoder_runs_in_the_same_passes(network: Network, flip: bool) -> None:
    scales = [torch.rand(5, 3, 24, 40), torch.rand(5, 3, 32, 48)]
    reading = MapSettings(start_layer=2)
    decoder = LabelProbabilities(decoder_grid(network, scales))
    passes = []
    network.backbone.register_forward_hook(lambda *arguments: passes.append(arguments))
    _, scores = multiscale_scores(network, scales, PRESENT, reading, flip=flip, decoder=decoder)
    count, ours_BChw = len(passes), decoder.log_mean()
    assert not ours_BChw.requires_grad
    alone = multiscale_scores(network, scales, PRESENT, reading, flip=flip)[1]
    torch.testing.assert_close(scores.values_Rhw, alone.values_Rhw)
    assert len(passes) == 2 * count
    theirs_BChw = log_label_probabilities(network, scales, flip=flip)
    assert float(theirs_BChw.exp().std()) > 0.01
    torch.testing.assert_close(ours_BChw, theirs_BChw)


def test_the_mean_of_two_passes_by_hand() -> None:
    mean = LabelProbabilities((1, 2))
    scores_12HW = torch.tensor([[[[0.0, 1.0]], [[0.0, -1.0]]]])
    mean.add(scores_12HW)
    torch.testing.assert_close(mean.log_mean(), scores_12HW.log_softmax(dim=1))
    mean.add(scores_12HW, mirrored=True)
    expected = (0.5 + F.softmax(torch.tensor([1.0, -1.0]), dim=0)) / 2
    torch.testing.assert_close(mean.log_mean().exp()[0], expected[:, None, None].expand(2, 1, 2))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "method", ["getam", "attention-gradient", "chefer", "gradcam", "attention", "rollout", "objects"]
)
def test_what_autocast_recorded_is_read_in_float32(network: Network, method: Method, kind: torch.dtype) -> None:
    settings = MapSettings(method=method, rows="both", spread=1)
    with torch.autocast("cpu", dtype=kind):
        with Recorder(network, settings) as recorder:
            features = network.features(torch.rand(5, 3, 24, 40))
            logits_BK = network.readout(features)
        assert logits_BK.dtype == kind
        inside = recorder.maps(features, logits_BK, PRESENT, keep_graph=True).values_Rhw
        assert torch.is_autocast_enabled("cpu")
    outside = recorder.maps(features, logits_BK, PRESENT).values_Rhw
    assert inside.dtype == torch.float32
    assert inside.amax(dim=(1, 2)).min() > 0
    torch.testing.assert_close(inside, outside, rtol=1e-5, atol=0)


def test_cams_of_autocast_are_picked_as_they_are(network: Network) -> None:
    settings = MapSettings(method="cam", gamma=1, spread=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with Recorder(network, settings) as recorder:
            features = network.features(torch.rand(5, 3, 24, 40))
            logits_BK = network.readout(features)
        expected = network.readout.cam(features).float().relu() * PRESENT[:, :, None, None]
        assert torch.equal(recorder.maps(features, logits_BK, PRESENT).dense(), expected)


def test_gradients_of_1e_8_survive_fp16(network: Network) -> None:
    """fp16 has no number between 0 and 6e-8."""
    with torch.no_grad():
        for name in ("head.weight", "project.weight"):
            network.readout.get_parameter(name).mul_(1 / 3000)
    images, settings = torch.rand(5, 3, 24, 40), MapSettings(method="attention-gradient", start_layer=2)
    with frozen(network), Recorder(network, settings) as recorder:
        logits_BK = network.classify(images)
    outputs = [attention.output_BAND for attention in recorder.tape.from_start]
    largest = max(float(gradient.abs().max()) for gradient in torch.autograd.grad(logits_BK.sum(), outputs))
    assert 1e-9 < largest < 2e-8
    _, full = read_maps(network, images, PRESENT, settings)
    with torch.autocast("cpu", dtype=torch.float16):
        _, half = read_maps(network, images, PRESENT, settings)
    assert float((half - full).norm() / full.norm()) < 0.1


def test_a_batch_without_a_tag_has_no_maps(network: Network) -> None:
    absent = torch.zeros(2, 3, dtype=torch.bool)
    for method in ("getam", "cam", "attention"):
        _, maps_BKhw = read_maps(network, torch.rand(2, 3, 16, 24), absent, MapSettings(method=method, spread=1))
        assert maps_BKhw.shape == (2, 3, 2, 3)
        assert not maps_BKhw.any()
