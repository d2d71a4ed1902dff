"""End-to-end training: one forward and two backwards against the same thing done in two passes.

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
from wsss.labels.recipe import label_images
from wsss.maps.generate import class_maps
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import MapSettings, Recorder
from wsss.maps.scores import normalise_scores
from wsss.models.network import Network
from wsss.training.segment import SegmentTask

CPU = torch.device("cpu")
PRESENT = torch.tensor([[True, False], [True, True], [False, False]])


def sharp(network: Network) -> Network:
    """In ``train`` mode without any dropout, with attention that differs from place to place."""
    torch.manual_seed(5)
    for block in network.backbone.vit.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.3)
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return network.train()


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
    """Pseudo labels the way ``make-pseudo`` makes them, from a forward pass of their own."""
    maps = config.maps
    _, maps_BKhw = class_maps(network, batch["image"], PRESENT, method=maps.method, start_layer=maps.start_layer)
    scores = normalise_scores(PresentMaps.from_dense(maps_BKhw, PRESENT))
    return label_images(batch["image"], scores, (batch["image"].shape[2], batch["image"].shape[3]), config.labels)


@pytest.mark.parametrize("method", ["getam", "attention-gradient", "gradcam", "cam", "attention"])
@pytest.mark.parametrize(
    "backbone", ["deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_gap_224", "vit_small_patch14_reg4_dinov2"]
)
def test_one_forward_teaches_as_two_do(
    tiny_config: Any, small_network: Callable[..., Network], backbone: str, method: str
) -> None:
    config = tiny_config(maps__method=method, maps__start_layer=1, labels__low=0.3, labels__high=0.5)
    network, batch = sharp(small_network(backbone)), make_batch()
    at_once = SegmentTask(config, None, CPU, from_disk=False, started=True)
    ours = gradients(at_once.losses(network, batch, 0, 10), network)

    label_BHW = separate_labels(network, batch, config)
    wanted = {0, 1} if method == "attention" else {0, 1, 2, IGNORE_INDEX}  # attention cannot tell classes apart
    assert wanted <= set(label_BHW.unique().tolist())
    from_disk = SegmentTask(config, None, CPU, from_disk=True, started=True)
    theirs = gradients(from_disk.losses(network, {**batch, "label": label_BHW}, 0, 10), network)

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
    task = SegmentTask(config, None, CPU, from_disk=False, started=True)
    with Recorder(network, MapSettings.of(config.maps)) as recorder:
        features = network.features(batch["image"], taps=True)
        logits_BK = network.readout(features)
    maps = recorder.maps(features, logits_BK, PRESENT, keep_graph=True)
    label_BHW = task.pseudo_labels(network, features, maps, batch)
    assert label_BHW.dtype == torch.uint8
    assert label_BHW.shape == (3, *size)
    assert not label_BHW.requires_grad
    assert set(label_BHW[0].unique().tolist()) <= {0, 1, IGNORE_INDEX}
    assert label_BHW[2].unique().tolist() == [0]  # no tag
    assert torch.equal(label_BHW, separate_labels(network, batch, config))


def test_crops_that_are_no_whole_patches(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    network, batch = sharp(small_network()), make_batch(32, 40)
    batch["image"] = batch["image"][:, :, :29, :37]
    task = SegmentTask(tiny_config(), None, CPU, from_disk=False, started=True)
    losses = task.losses(network, batch, 0, 10)
    assert all(value.isfinite() for value in losses.values())


def test_saliency_reaches_the_labels_and_the_loss(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    config = tiny_config(labels__mining_quantile=1.0)
    network, batch = sharp(small_network()), make_batch()
    task = SegmentTask(config, None, CPU, from_disk=False, started=True)
    saliency = torch.zeros(3, 32, 40, dtype=torch.uint8)
    saliency[:, :16] = 255
    _, maps_BKhw = class_maps(network, batch["image"], PRESENT)
    features = network.features(batch["image"], taps=True)
    maps = PresentMaps.from_dense(maps_BKhw, PRESENT)
    label_BHW = task.pseudo_labels(network, features, maps, {**batch, "saliency": saliency})
    assert (label_BHW[:, 16:] == 0).all()  # not salient, nothing above the largest score to mine
    assert (label_BHW[2, :16] == IGNORE_INDEX).all()  # salient, but of no class
    losses = task.losses(network, {**batch, "saliency": saliency}, 0, 10)
    assert set(losses) == {"segmentation", "classification", "energy", "saliency"}


def test_a_batch_without_a_valid_pixel_is_harmless(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    network, batch = sharp(small_network()), make_batch()
    task = SegmentTask(tiny_config(segment__weight_energy=0.0), None, CPU, from_disk=True, started=True)
    label_BHW = torch.full((3, 32, 40), IGNORE_INDEX, dtype=torch.uint8)
    losses = task.losses(network, {**batch, "label": label_BHW}, 0, 10)
    assert losses["segmentation"].item() == 0.0
    grads = gradients(losses, network)
    assert all(grad.isfinite().all() for grad in grads.values())
    assert all(not grad.any() for name, grad in grads.items() if name.startswith("decoder."))


def test_a_batch_without_a_tag(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    network, batch = sharp(small_network()), make_batch()
    batch["present"] = torch.zeros(3, 2, dtype=torch.bool)
    task = SegmentTask(tiny_config(), None, CPU, from_disk=False, started=True)
    grads = gradients(task.losses(network, batch, 0, 10), network)
    assert all(grad.isfinite().all() for grad in grads.values())


def phases(task: SegmentTask, network: Network, batch: dict[str, Tensor], total: int) -> list[bool]:
    """Whether each step segments."""
    return ["segmentation" in task.losses(network, batch, step, total) for step in range(total)]


def test_the_first_share_only_classifies(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    network, batch = sharp(small_network()), make_batch(16, 16)
    config = tiny_config(segment__cls_share=0.4, segment__lr_seg_factor=0.1, segment__optimizer="sgd-poly")
    task = SegmentTask(config, None, CPU, from_disk=False, started=False)
    assert phases(task, network, batch, 5) == [False, False, True, True, True]
    factors = [task.lr_factor(step, 5) for step in range(5)]
    plain = [(1 - step / 5) ** 0.9 for step in range(5)]
    assert factors == pytest.approx([*plain[:2], *(0.1 * factor for factor in plain[2:])])
    with torch.no_grad():
        assert set(task.losses(network, batch, 1, 5)) == {"classification"}


@pytest.mark.parametrize(("from_disk", "started"), [(True, False), (False, True)])
def test_what_knows_its_classes_segments_at_once(
    tiny_config: Any, small_network: Callable[..., Network], from_disk: bool, started: bool
) -> None:
    network, batch = sharp(small_network()), make_batch(16, 16)
    batch["label"] = torch.ones(3, 16, 16, dtype=torch.uint8)
    config = tiny_config(segment__cls_share=0.9, segment__lr_seg_factor=0.1, segment__optimizer="sgd-poly")
    task = SegmentTask(config, None, CPU, from_disk=from_disk, started=started)
    assert phases(task, network, batch, 3) == [True, True, True]
    assert task.lr_factor(0, 3) == 1.0


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_autocast(tiny_config: Any, small_network: Callable[..., Network], kind: torch.dtype) -> None:
    network, batch = sharp(small_network()), make_batch()
    task = SegmentTask(tiny_config(), None, CPU, from_disk=False, started=True)
    exact = task.losses(network, batch, 0, 10)
    with torch.autocast("cpu", dtype=kind):
        losses = task.losses(network, batch, 0, 10)
        grads = gradients({name: value.float() for name, value in losses.items()}, network)
    assert all(grad.isfinite().all() and grad.dtype == torch.float32 for grad in grads.values())
    assert losses["classification"].item() == pytest.approx(exact["classification"].item(), rel=0.03)
    assert losses["segmentation"].item() == pytest.approx(exact["segmentation"].item(), rel=0.2)


def test_weights_of_the_terms(tiny_config: Any, small_network: Callable[..., Network]) -> None:
    network, batch = sharp(small_network()), make_batch()
    batch["label"] = torch.ones(3, 32, 40, dtype=torch.uint8)
    batch["saliency"] = torch.full((3, 32, 40), 255, dtype=torch.uint8)
    one, other = (
        SegmentTask(tiny_config(**changes), None, CPU, from_disk=True, started=True).losses(network, batch, 0, 1)
        for changes in (
            {"segment__weight_energy": 1e-3},
            {
                "segment__weight_classification": 2.0,
                "segment__weight_saliency": 3.0,
                "segment__weight_energy": 4e-3,
            },
        )
    )
    ratios = {name: (other[name] / one[name]).item() for name in one}
    expected = {"segmentation": 1.0, "classification": 2.0, "energy": 4.0, "saliency": 3.0}
    assert ratios == pytest.approx(expected, rel=1e-4)


def test_labels_hear_the_teacher_and_not_the_student(
    tiny_config: Any, small_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, teacher, batch = sharp(small_network()), sharp(small_network()), make_batch()
    with torch.no_grad():
        for parameter in teacher.decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    task = SegmentTask(tiny_config(segment__maps_share=0.5), None, CPU, from_disk=False, started=True)
    heard: list[Tensor | None] = []
    plain = task.pseudo_labels
    monkeypatch.setattr(task, "pseudo_labels", lambda *given: heard.append(given[-1]) or plain(*given))
    network.train()
    teacher.eval()
    for step in (4, 5):
        task.losses(network, batch, step, 10, teacher)
    before, after = heard
    assert before is None
    assert after is not None
    assert not after.requires_grad
    torch.testing.assert_close(after, teacher(batch["image"])[1].detach())
