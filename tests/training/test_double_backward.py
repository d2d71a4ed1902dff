"""End-to-end training: one forward with two backwards against separate passes for labels and losses.

Shape suffixes: B images, K classes, H x W pixels, h x w patch grid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wsss.config import Config
from wsss.data.masks import IGNORE_INDEX
from wsss.errors import UsageError
from wsss.labels.recipe import label_images
from wsss.maps.generate import class_maps
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import MapSettings, Recorder
from wsss.maps.scores import normalise_scores
from wsss.models.network import Network
from wsss.training.average import MovingAverage
from wsss.training.segment import SegmentStep

PRESENT = torch.tensor([[True, False], [True, True], [False, False]])


def sharp(network: Network) -> Network:
    """Put a network in ``train`` mode without dropout, with attention that varies between tokens."""
    torch.manual_seed(5)
    for block in network.backbone.vit.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.3)
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return network.train()


def step_of(
    network: Network, config: Config, *, total: int = 10, labels_given: bool = False, started: bool = True
) -> SegmentStep:
    return SegmentStep(network, config, total, labels_given=labels_given, started=started)


def make_batch(height: int = 32, width: int = 40) -> dict[str, Tensor]:
    torch.manual_seed(7)
    coarse = torch.rand(3, 3, height // 8, width // 8)
    images = nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return {"image": images, "present": PRESENT}


def gradients(losses: dict[str, Tensor], network: Network) -> dict[str, Tensor]:
    network.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def separate_labels(network: Network, batch: dict[str, Tensor], config: Config) -> Tensor:
    """Pseudo labels made as in ``make-pseudo``, from a separate forward pass."""
    maps = config.maps
    _, maps_BKhw = class_maps(network, batch["image"], PRESENT, method=maps.method, start_layer=maps.start_layer)
    scores = normalise_scores(PresentMaps.from_dense(maps_BKhw, PRESENT))
    return label_images(batch["image"], scores, (batch["image"].shape[2], batch["image"].shape[3]), config.labels)


@pytest.mark.parametrize("method", ["getam", "attention-gradient", "gradcam", "cam", "attention"])
@pytest.mark.parametrize(
    "backbone", ["deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_gap_224", "vit_small_patch14_reg4_dinov2"]
)
def test_one_forward_gives_the_gradients_of_two(
    tiny_config: Any, small_network: Callable[..., Network], backbone: str, method: str
) -> None:
    config = tiny_config(maps__method=method, maps__start_layer=1, labels__low=0.3, labels__high=0.5)
    network, batch = sharp(small_network(backbone)), make_batch()
    ours = gradients(step_of(network, config)(batch, 0), network)

    label_BHW = separate_labels(network, batch, config)
    wanted = {0, 1} if method == "attention" else {0, 1, 2, IGNORE_INDEX}  # attention cannot tell classes apart
    assert wanted <= set(label_BHW.unique().tolist())
    given = step_of(network, config, labels_given=True)
    theirs = gradients(given({**batch, "label": label_BHW}, 0), network)

    assert ours.keys() == theirs.keys()
    assert any(name.startswith("backbone.") and grad.abs().sum() > 0 for name, grad in ours.items())
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("size", [(32, 40), (48, 24)])
def test_the_labels_of_a_step_are_those_of_make_pseudo(
    tiny_config: Any, small_network: Callable[..., Network], size: tuple[int, int]
) -> None:
    config = tiny_config(labels__low=0.3, labels__high=0.5)
    network, batch = sharp(small_network()), make_batch(*size)
    step = step_of(network, config)
    with Recorder(network, MapSettings.of(config.maps)) as recorder:
        features = network.features(batch["image"], taps=True)
        logits_BK = network.readout(features)
    maps = recorder.maps(features, logits_BK, PRESENT, keep_graph=True)
    label_BHW = step.pseudo_labels(features, maps, batch)
    assert label_BHW.dtype == torch.uint8
    assert label_BHW.shape == (3, *size)
    assert not label_BHW.requires_grad
    assert set(label_BHW[0].unique().tolist()) <= {0, 1, IGNORE_INDEX}
    assert label_BHW[2].unique().tolist() == [0]  # no tag
    assert torch.equal(label_BHW, separate_labels(network, batch, config))


def test_crops_that_are_no_whole_patches(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    network, batch = sharp(small_network()), make_batch(32, 40)
    batch["image"] = batch["image"][:, :, :29, :37]
    losses = step_of(network, tiny_config())(batch, 0)
    assert all(value.isfinite() for value in losses.values())


def test_saliency_reaches_the_labels_and_the_loss(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    config = tiny_config(labels__mining_quantile=1.0)
    network, batch = sharp(small_network()), make_batch()
    step = step_of(network, config)
    saliency = torch.zeros(3, 32, 40, dtype=torch.uint8)
    saliency[:, :16] = 255
    _, maps_BKhw = class_maps(network, batch["image"], PRESENT)
    features = network.features(batch["image"], taps=True)
    maps = PresentMaps.from_dense(maps_BKhw, PRESENT)
    label_BHW = step.pseudo_labels(features, maps, {**batch, "saliency": saliency})
    assert (label_BHW[:, 16:] == 0).all()  # not salient, nothing above the largest score to mine
    assert (label_BHW[2, :16] == IGNORE_INDEX).all()  # salient, but of no class
    losses = step({**batch, "saliency": saliency}, 0)
    assert set(losses) == {"segmentation", "classification", "energy", "saliency"}


def test_a_batch_without_a_valid_pixel_is_harmless(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    network, batch = sharp(small_network()), make_batch()
    step = step_of(network, tiny_config(segment__weight_energy=0.0), labels_given=True)
    label_BHW = torch.full((3, 32, 40), IGNORE_INDEX, dtype=torch.uint8)
    losses = step({**batch, "label": label_BHW}, 0)
    assert losses["segmentation"].item() == 0.0
    grads = gradients(losses, network)
    assert all(grad.isfinite().all() for grad in grads.values())
    assert all(not grad.any() for name, grad in grads.items() if name.startswith("decoder."))


def test_a_batch_without_a_tag(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    network, batch = sharp(small_network()), make_batch()
    batch["present"] = torch.zeros(3, 2, dtype=torch.bool)
    grads = gradients(step_of(network, tiny_config())(batch, 0), network)
    assert all(grad.isfinite().all() for grad in grads.values())


def segments(step: SegmentStep, batch: dict[str, Tensor]) -> list[bool]:
    """Whether each step segments."""
    return ["segmentation" in step(batch, number) for number in range(step.total)]


def test_the_phases_follow_each_other(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    config = tiny_config(segment__cls_share=0.4, segment__maps_share=0.3)
    step = step_of(small_network(), config, started=False)
    assert [step.phase_at(number) for number in range(10)] == ["classify"] * 4 + ["maps"] * 2 + ["taught"] * 4
    step = step_of(small_network(), config)
    assert [step.phase_at(number) for number in range(10)] == ["maps"] * 3 + ["taught"] * 7
    step = step_of(small_network(), config, labels_given=True, started=False)
    assert {step.phase_at(number) for number in range(10)} == {"given"}


def test_a_start_layer_that_the_backbone_lacks_is_refused_at_once(
    tiny_config: Any, small_network: Callable[..., Network]
) -> None:
    config = tiny_config(maps__start_layer=4)
    with pytest.raises(UsageError, match=r"maps\.start_layer 4: deit_tiny.* has 4 blocks, from 0 to 3") as caught:
        step_of(small_network(), config)
    assert caught.value.fix == "--set maps.start_layer=2"
    step_of(small_network(), config, labels_given=True)  # with labels from disk no maps are made


def test_a_step_is_one_module(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    """The module that DistributedDataParallel can wrap holds student and average; only the student has gradients."""
    step = step_of(sharp(small_network()), tiny_config(segment__maps_share=0.0)).train()
    assert isinstance(step.average, MovingAverage)
    assert not any(module.training for module in step.average.modules())
    trained = {name for name, parameter in step.named_parameters() if parameter.requires_grad}
    assert trained == {f"network.{name}" for name, _ in step.network.named_parameters()}
    losses = step(make_batch(), 0)
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None for name, parameter in step.named_parameters() if name in trained)


def test_the_first_share_only_classifies(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    network, batch = sharp(small_network()), make_batch(16, 16)
    config = tiny_config(segment__cls_share=0.4, segment__lr_seg_factor=0.1, segment__optimizer="sgd-poly")
    step = step_of(network, config, total=5, started=False)
    assert segments(step, batch) == [False, False, True, True, True]
    factors = [step.lr_factor(number) for number in range(5)]
    plain = [(1 - number / 5) ** 0.9 for number in range(5)]
    assert factors == pytest.approx([*plain[:2], *(0.1 * factor for factor in plain[2:])])
    with torch.no_grad():
        assert set(step(batch, 1)) == {"classification"}


@pytest.mark.parametrize(("labels_given", "started"), [(True, False), (False, True)])
def test_a_trained_start_segments_from_the_first_step(
    tiny_config: Any, small_network: Callable[..., Network], labels_given: bool, started: bool
) -> None:
    network, batch = sharp(small_network()), make_batch(16, 16)
    batch["label"] = torch.ones(3, 16, 16, dtype=torch.uint8)
    config = tiny_config(segment__cls_share=0.9, segment__lr_seg_factor=0.1, segment__optimizer="sgd-poly")
    step = step_of(network, config, total=3, labels_given=labels_given, started=started)
    assert segments(step, batch) == [True, True, True]
    assert step.lr_factor(0) == 1.0


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_autocast(tiny_config: Any, small_network: Callable[..., Network], kind: torch.dtype) -> None:
    network, batch = sharp(small_network()), make_batch()
    step = step_of(network, tiny_config())
    exact = step(batch, 0)
    with torch.autocast("cpu", dtype=kind):
        losses = step(batch, 0)
        grads = gradients({name: value.float() for name, value in losses.items()}, network)
    assert all(grad.isfinite().all() and grad.dtype == torch.float32 for grad in grads.values())
    assert losses["classification"].item() == pytest.approx(exact["classification"].item(), rel=0.03)
    assert losses["segmentation"].item() == pytest.approx(exact["segmentation"].item(), rel=0.2)


def test_weights_of_the_terms(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    network, batch = sharp(small_network()), make_batch()
    batch["label"] = torch.ones(3, 32, 40, dtype=torch.uint8)
    batch["saliency"] = torch.full((3, 32, 40), 255, dtype=torch.uint8)
    one, other = (
        step_of(network, tiny_config(segment__weight_energy=weight), labels_given=True)(batch, 0)
        for weight in (1e-3, 4e-3)
    )
    ratios = {name: (other[name] / one[name]).item() for name in one}
    expected = {"segmentation": 1.0, "classification": 1.0, "energy": 4.0, "saliency": 1.0}
    assert ratios == pytest.approx(expected, rel=1e-4)


def test_labels_read_the_average_and_not_the_network(
    tiny_config: Any, small_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, batch = sharp(small_network()), make_batch()
    step = step_of(network, tiny_config(segment__maps_share=0.5)).train()
    assert step.average is not None
    teacher = step.average.network
    assert teacher.decoder is not None
    with torch.no_grad():
        for parameter in teacher.decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    read: list[Tensor | None] = []
    plain = step.pseudo_labels
    monkeypatch.setattr(step, "pseudo_labels", lambda *given: read.append(given[-1]) or plain(*given))
    for number in (4, 5):
        step(batch, number)
    before, after = read
    assert before is None
    assert after is not None
    assert not after.requires_grad
    torch.testing.assert_close(after, teacher(batch["image"])[1].detach())


def test_rows_of_a_class_token_that_the_backbone_lacks_are_refused_at_once(
    tiny_config: Any, small_network: Callable[..., Network]
) -> None:
    """Not at the first step that makes maps, after the classification phase."""
    config = tiny_config(maps__rows="both")
    with pytest.raises(UsageError, match=r"maps\.rows=both: vit_base_patch16_siglip_gap_224 has no class token"):
        step_of(small_network("vit_base_patch16_siglip_gap_224"), config)
