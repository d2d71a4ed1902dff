"""ConvNeXt, EfficientNet and ResNet as backbones: the face of transformers, class maps, what is refused, BatchNorm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from wsss.attention.temperature import Temperature
from wsss.config import Config
from wsss.errors import UsageError
from wsss.inference.labeller import Labeller
from wsss.maps.generate import class_maps
from wsss.maps.recorder import MapSettings, Recorder
from wsss.models.catalogue import backbone_names, described
from wsss.models.checkpoint import load_network, save_checkpoint
from wsss.models.convolution import Convolution, batch_norms, convolution_networks, is_convolution
from wsss.models.network import Network, build_network
from wsss.sections import EditSection
from wsss.training.head import freeze_below
from wsss.training.optimiser import parameter_groups

NAMES = ("convnext_atto", "resnet10t", "tf_efficientnet_lite0")
DEPTHS = {"tf_efficientnet_lite0": 7}
PRESENT = torch.tensor([[True, False], [True, True]])
CLASSES = ("bee", "ladybird")


@pytest.fixture(params=NAMES)
def network(request: pytest.FixtureRequest) -> Network:
    """Random, in ``eval`` mode; where layer scales hide the blocks they are raised to 1."""
    torch.manual_seed(0)
    network = build_network(request.param, CLASSES, decoder=False)
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.ones_(parameter)
    return network.eval()


def images(height: int = 64, width: int = 96, seed: int = 0) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_the_final_map_is_the_patches(network: Network) -> None:
    backbone = network.backbone
    assert (backbone.stride, backbone.depth, backbone.num_prefix_tokens) == ((32, 32), DEPTHS.get(backbone.name, 4), 0)
    with torch.no_grad():
        features = network.features(images(60, 90))  # padded to 64 x 96
        logits_BK = network.readout(features)
    assert features.grid == (2, 3)
    assert features.class_BC is None
    assert features.patches_BNC.shape == (2, 6, backbone.embed_dim)
    assert logits_BK.shape == (2, 2)
    assert network.readout.fed == "pool"


def test_patches_are_in_the_order_of_the_grid(network: Network) -> None:
    normalised = (images() - network.mean) / network.std
    with torch.no_grad():
        map_BChw = network.backbone.final_norm(network.backbone.vit.forward_features(normalised))
        features = network.features(images())
    torch.testing.assert_close(features.patches_BNC[1, 5], map_BChw[1, :, 1, 2])


@pytest.mark.parametrize("name", NAMES)
def test_a_pooled_image_is_what_timm_pools(name: str) -> None:
    """Where nothing follows the pool, or a norm that is linear but for the scale of each place (ConvNeXt)."""
    torch.manual_seed(0)
    backbone = Convolution(name).eval()
    with torch.no_grad():
        pooled_BC = backbone(images()).patches_BNC.mean(dim=1)
        expected_BC = backbone.vit(images())
    if name == "convnext_atto":
        assert torch.cosine_similarity(pooled_BC, expected_BC).min() > 0.9
    else:
        torch.testing.assert_close(pooled_BC, expected_BC)


def test_gradcam_equals_one_by_hand(network: Network) -> None:
    """The gradient of a logit at the final map, averaged over the places, weighs its channels."""
    kept: list[Tensor] = []
    _, maps_BKhw = class_maps(network, images(), PRESENT, method="gradcam")
    vit = network.backbone.vit
    last = {"convnext_atto": "stages", "resnet10t": "layer4", "tf_efficientnet_lite0": "bn2"}[network.backbone.name]
    handle = getattr(vit, last).register_forward_hook(lambda module, inputs, output: kept.append(output))
    for b, k in PRESENT.nonzero().tolist():
        kept.clear()
        (gradient,) = torch.autograd.grad(network.classify(images())[b, k], kept)
        expected_hw = (gradient[b].mean(dim=(1, 2))[:, None, None] * kept[0][b]).sum(dim=0).relu()
        torch.testing.assert_close(maps_BKhw[b, k], expected_hw.detach(), rtol=1e-4, atol=1e-7)
    handle.remove()
    assert maps_BKhw[PRESENT].amax() > 0
    assert not maps_BKhw[0, 1].any()


def test_cam_is_the_head_at_each_place(network: Network) -> None:
    logits_BK, maps_BKhw = class_maps(network, images(), PRESENT, method="cam")
    cam_BKhw = network.readout.cam(network.features(images()))
    torch.testing.assert_close(cam_BKhw.mean(dim=(2, 3)) + network.readout.head.bias, logits_BK)  # type: ignore[union-attr]
    torch.testing.assert_close(maps_BKhw[PRESENT], cam_BKhw.relu()[PRESENT].detach())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (MapSettings(method="getam", spread=0), "maps.method=getam"),
        (MapSettings(method="gradcam", spread=1), "maps.spread=1"),
        (MapSettings(method="cam", spread=0, start_layer=2), "maps.start_layer=2"),
        (MapSettings(method="cam", spread=0, rows="token"), "maps.rows=token"),
        (MapSettings(), "maps.method=attention-gradient, maps.spread=1"),
    ],
)
def test_other_maps_are_refused_with_the_remedy(network: Network, settings: MapSettings, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recorder(network, settings)
    assert named in caught.value.problem
    assert network.backbone.name in caught.value.problem
    remedy = [word for word in caught.value.fix.split() if "=" in word]
    assert remedy == ["maps.method=gradcam", "maps.spread=0", "maps.start_layer=null", "maps.rows=auto"]


def test_the_remedy_works(network: Network) -> None:
    config = Config.model_validate({"maps": {"method": "gradcam", "spread": 0, "scales": [64]}})
    maps = Labeller(network, config, torch.device("cpu")).maps(
        torch.zeros(40, 70, 3, dtype=torch.uint8).numpy(), ["bee"]
    )
    assert maps["bee"].shape == (2, 3)


def test_decoders_edits_and_class_tokens_are_refused(network: Network) -> None:
    name = network.backbone.name
    with pytest.raises(UsageError, match="decoder") as caught:
        build_network(name, CLASSES)
    assert "train-seg --data DIR --labels" in caught.value.fix
    with pytest.raises(UsageError, match="no attention"):
        build_network(name, CLASSES, decoder=False, attention=[EditSection(name="temperature")])
    with pytest.raises(UsageError, match="class token"):
        build_network(name, CLASSES, decoder=False, readout="project")
    with pytest.raises(UsageError, match="no attention"), network.edited(Temperature(2.0)):
        pass


def test_maps_are_made_in_eval_alone() -> None:
    network = build_network("resnet10t", CLASSES, decoder=False).train()
    with pytest.raises(UsageError, match="depend on its batch"):
        Recorder(network, MapSettings(method="cam", spread=0))
    build_network("convnext_atto", CLASSES, decoder=False).train()  # no BatchNorm
    assert not batch_norms(build_network("convnext_atto", CLASSES, decoder=False))


def test_images_do_not_influence_each_other(network: Network) -> None:
    with torch.no_grad():
        torch.testing.assert_close(network.classify(images())[:1], network.classify(images()[:1]))


@pytest.mark.parametrize(
    ("name", "upper"),
    [("resnet10t", {"layer3", "layer4"}), ("tf_efficientnet_lite0", {"blocks", "conv_head", "bn2"})],
)
def test_frozen_stages_keep_their_statistics(name: str, upper: set[str]) -> None:
    network = build_network(name, CLASSES, decoder=False)
    freeze_below(network, "top")
    network.train()
    vit = network.backbone.vit
    before = {name: buffer.clone() for name, buffer in vit.named_buffers()}
    network.classify(images())
    changed = {name.split(".")[0] for name, buffer in vit.named_buffers() if not torch.equal(buffer, before[name])}
    assert changed == upper - {"conv_head"}
    trained = {name.split(".")[0] for name, parameter in vit.named_parameters() if parameter.requires_grad}
    assert trained == upper


def test_stages_have_falling_rates(network: Network) -> None:
    freeze_below(network, "top")
    groups = parameter_groups(Config().classify, network, layer_decay=0.5)
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    lr = Config().classify.lr
    stages = [next(iter(stage.parameters())) for stage in network.backbone.blocks]
    frozen = [None] * (len(stages) // 2)
    assert [rates.get(id(one)) for one in stages] == frozen + [
        lr / 2**i for i in reversed(range(len(stages) - len(frozen)))
    ]
    trained = [one for one in network.parameters() if one.requires_grad]
    assert {id(one) for one in trained} == set(rates)


@pytest.mark.parametrize("name", NAMES)
def test_weights_with_a_classifier_are_read(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    torch.save(timm.create_model(name).state_dict(), tmp_path / "weights.pth")
    backbone = Convolution(name)
    backbone.load(str(tmp_path / "weights.pth"))
    state = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert all(torch.equal(value, state[key]) for key, value in backbone.vit.state_dict().items())
    assert {key.split(".")[0] for key in state.keys() - backbone.vit.state_dict().keys()} <= {
        "classifier",
        "fc",
        "head",
    }


def test_a_checkpoint_brings_back_the_same_bits(network: Network, tmp_path: Path) -> None:
    model: dict[str, Any] = {"backbone": network.backbone.name, "weights": "none"}
    config = Config.model_validate({"model": model})
    save_checkpoint(tmp_path / "last.pt", network, config)
    loaded, _, _ = load_network(tmp_path)
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in network.state_dict().items())
    with torch.no_grad():
        assert torch.equal(loaded.classify(images()), network.classify(images()))


def test_what_is_listed() -> None:
    assert {"resnet50", "convnext_tiny", "efficientnet_b0"} <= set(convolution_networks())
    assert backbone_names("*t10t") == ["resnet10t"]
    assert is_convolution("resnet50.a1_in1k")
    assert not is_convolution("deit_tiny_patch16_224")
    assert not is_convolution("resnet")
    assert described("resnet10t") == ("resnet10t", "maps", 32, 0, 0)
    assert described("vit_small_patch14_reg4_dinov2") == ("vit_small_patch14_reg4_dinov2", "attention", 14, 5, 6)


@pytest.mark.parametrize("overrides", [{"depths": 3}, {"nonsense": 1}])
def test_arguments_that_timm_refuses(overrides: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"model\.vit"):
        Convolution("convnext_atto", overrides=overrides)
