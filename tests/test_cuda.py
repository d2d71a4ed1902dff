"""A CUDA device gives the numbers and labels of the CPU, also in half precision, and no step synchronises it.

Tags stay on the host, as in a run; results are the same with tags on the device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wsss.config import ClassifySection, Config, LabelsSection, RunSection
from wsss.data.dataset import open_data
from wsss.data.masks import read_mask
from wsss.data.records import TaggedSet
from wsss.data.scenes import SceneSettings, write_scenes
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.predicting import predict_masks
from wsss.labels.bands import labels_from_grid
from wsss.labels.completion import BackgroundBand, complete_labels
from wsss.labels.pamr import pamr
from wsss.labels.recipe import Refined, refine_scores
from wsss.machine import number_type, prepare_device
from wsss.maps.generate import class_maps
from wsss.maps.present import PresentMaps
from wsss.models.network import Network
from wsss.outputs.manifest import read_manifest
from wsss.reporting import Silent
from wsss.training.loop import Loop
from wsss.training.optimiser import make_optimizer
from wsss.training.segment import SegmentStep
from wsss.training.start import resume_segmenter, train_segmenter
from wsss.training.step import Batch

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PRESENT = torch.tensor([[True, False], [True, True]])
CPU, CUDA = torch.device("cpu"), torch.device("cuda")

DIFFERING = {"none": 0.005, "bf16": 0.05}
"""Largest share of pixels whose label may differ from that in single precision on the CPU."""


@pytest.fixture(autouse=True)
def exact_products() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def sharp(network: Network) -> Network:
    torch.manual_seed(5)
    for block in network.backbone.vit.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.3)
    return network


@pytest.mark.parametrize("overhead", [0.01, 4096.0], ids=["apart", "together"])
@pytest.mark.parametrize(
    "method", ["getam", "attention-gradient", "gradcam", "rollout", "chefer", "legrad", "attention", "cam", "objects"]
)
@pytest.mark.parametrize("backbone", ["deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_gap_224"])
def test_class_maps_equal_those_of_the_cpu(
    small_network: Callable[..., Network], monkeypatch: pytest.MonkeyPatch, backbone: str, method: Any, overhead: float
) -> None:
    monkeypatch.setattr("wsss.maps.passes.OTHER_OVERHEAD", overhead)
    network = sharp(small_network(backbone, decoder=False))
    torch.manual_seed(0)
    images_B3HW = torch.rand(2, 3, 40, 56)
    logits_BK, maps_BKhw = class_maps(network, images_B3HW, PRESENT, method=method)
    network.cuda()
    for present_BK in (PRESENT, PRESENT.cuda()):
        on_device = class_maps(network, images_B3HW.cuda(), present_BK, method=method)
        torch.testing.assert_close(on_device[0].cpu(), logits_BK, rtol=1e-4, atol=1e-5)
        error = (on_device[1].cpu() - maps_BKhw).norm() / maps_BKhw.norm()
        assert error < 1e-4


@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_pamr_and_completion_equal_those_of_the_cpu(place: str) -> None:
    torch.manual_seed(0)
    images_B3HW, scores_BKHW = torch.rand(2, 3, 48, 64), torch.rand(2, 2, 48, 64)
    here = pamr(images_B3HW, PresentMaps.from_dense(scores_BKHW, PRESENT))
    there = pamr(images_B3HW.cuda(), PresentMaps.from_dense(scores_BKHW.cuda(), PRESENT.to(place)))
    torch.testing.assert_close(there.values_Rhw.cpu(), here.values_Rhw, rtol=1e-4, atol=1e-5)
    rule = BackgroundBand(low=0.4, high=0.6)
    for saliency_BHW in (None, torch.rand(2, 48, 64)):
        label_BHW = complete_labels(here, (48, 64), background=rule, saliency_BHW=saliency_BHW)
        saliency_BHW = None if saliency_BHW is None else saliency_BHW.cuda()
        on_device_BHW = complete_labels(here.to("cuda"), (48, 64), background=rule, saliency_BHW=saliency_BHW)
        assert on_device_BHW.is_cuda
        assert torch.equal(on_device_BHW.cpu(), label_BHW)


@pytest.mark.parametrize("decoder", [False, True])
def test_refinement_equals_that_of_the_cpu(decoder: bool) -> None:
    torch.manual_seed(0)
    images_B3HW, scores = torch.rand(2, 3, 48, 64), PresentMaps.from_dense(torch.rand(2, 2, 6, 8), PRESENT)
    log_BChw = torch.rand(2, 3, 24, 32).log_softmax(dim=1) if decoder else None
    section = LabelsSection(pamr_iterations=3)
    here = refine_scores(images_B3HW, scores, section, log_probabilities_BChw=log_BChw)
    log_BChw = None if log_BChw is None else log_BChw.cuda()
    there = refine_scores(images_B3HW.cuda(), scores.to("cuda"), section, log_probabilities_BChw=log_BChw).to("cpu")
    torch.testing.assert_close(there.scores.values_Rhw, here.scores.values_Rhw, rtol=1e-4, atol=1e-5)
    assert (there.background_Bhw is None) == (here.background_Bhw is None)
    if here.background_Bhw is not None:
        torch.testing.assert_close(there.background_Bhw, here.background_Bhw, rtol=1e-4, atol=1e-5)


def test_labels_from_a_grid_equal_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    log_Chw = (4 * torch.randn(9, 20, 30)).log_softmax(dim=0)
    here, there = labels_from_grid(log_Chw, (333, 517)), labels_from_grid(log_Chw.cuda(), (333, 517))
    assert there.is_cuda
    assert (there.cpu() != here).float().mean() < 1e-4


@pytest.fixture(scope="module")
def two_sizes(tmp_path_factory: pytest.TempPathFactory) -> TaggedSet:
    """16 images of two sizes that have one shape at the scales of the network, so that they share batches."""
    root = tmp_path_factory.mktemp("two sizes")
    settings = SceneSettings(classes=("bee", "ladybird"), sizes=((48, 64), (50, 66)), max_classes=2)
    write_scenes(root, train=16, val=1, seed=0, settings=settings)
    return open_data(root, split="train")


def confident(network: Network) -> Network:
    """The network of `sharp`, with decoder probabilities near 0 or 1 that predict all classes."""
    network = sharp(network)
    if network.decoder is not None:
        torch.manual_seed(3)
        nn.init.normal_(network.decoder.classify.weight, std=3.0)
    return network


def assert_same_labels(ours: Path, theirs: Path, most: float) -> None:
    """Check that two folders of label maps have several classes and differ in at most a share ``most`` of pixels."""
    names = sorted(path.name for path in (theirs / "labels").glob("*.png"))
    assert names == sorted(path.name for path in (ours / "labels").glob("*.png"))
    here, there = (
        np.concatenate([read_mask(out / "labels" / name).ravel() for name in names]) for out in (ours, theirs)
    )
    assert len(np.unique(there)) > 2
    assert np.mean(here != there) <= most


def reading(tiny_config: Any, amp: str, device: torch.device) -> Config:
    """A config for labels and masks from two scales and flips, with two loader processes."""
    config: Config = tiny_config(
        run__device=device.type,
        run__amp=amp,
        run__workers=2,
        maps__scales=[48, 32],
        maps__flip=True,
        run__batch_pixels=6 * 2 * 48**2,
        predict__scales=[48, 32],
        predict__flip=True,
    )
    return config


@pytest.mark.parametrize("amp", ["none", "bf16"])
@pytest.mark.parametrize("decoder", [False, True])
def test_pseudo_labels_equal_those_of_the_cpu(
    tmp_path: Path,
    tiny_config: Any,
    small_network: Callable[..., Network],
    two_sizes: TaggedSet,
    monkeypatch: pytest.MonkeyPatch,
    decoder: bool,
    amp: str,
) -> None:
    network = confident(small_network(decoder=decoder))
    together: list[int] = []

    def counted(images_B3HW: Tensor, *others: Any, **options: Any) -> Refined:
        together.append(len(images_B3HW))
        return refine_scores(images_B3HW, *others, **options)

    for device, kind in ((CPU, "none"), (CUDA, amp)):
        config, out = reading(tiny_config, kind, device), tmp_path / device.type
        together.clear()
        with monkeypatch.context() as watched:
            watched.setattr("wsss.inference.labeller.refine_scores", counted)
            make_pseudo_labels(network, two_sizes, out, config, Silent(), device=device, checkpoint_sha256="f00d")
        assert sum(together) == 16
        assert (max(together) > 1) == (device == CUDA)
    assert_same_labels(tmp_path / "cuda", tmp_path / "cpu", DIFFERING[amp])


@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_masks_equal_those_of_the_cpu(
    tmp_path: Path, tiny_config: Any, small_network: Callable[..., Network], two_sizes: TaggedSet, amp: str
) -> None:
    network = confident(small_network())
    for device, kind in ((CPU, "none"), (CUDA, amp)):
        config, out = reading(tiny_config, kind, device), tmp_path / device.type
        predict_masks(
            network, two_sizes.records, out, config, Silent(), device=device, checkpoint_sha256="f00d", overlays=False
        )
    assert_same_labels(tmp_path / "cuda", tmp_path / "cpu", DIFFERING[amp])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_step_of_half_precision(tiny_config: Any, small_network: Callable[..., Network], kind: torch.dtype) -> None:
    network = sharp(small_network()).cuda().train()
    torch.manual_seed(0)
    batch = {"image": torch.rand(2, 3, 32, 40).cuda(), "present": PRESENT}
    step = SegmentStep(network, tiny_config(), 10, labels_given=False, started=True)
    with torch.autocast("cuda", dtype=kind):
        losses = step(batch, 0)
    torch.stack([value.float() for value in losses.values()]).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert all(math.isfinite(value.item()) for value in losses.values())


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_end_to_end_training(tmp_path: Path, tiny_config: Any, amp: str) -> None:
    config = tiny_config(run__device="cuda", run__amp=amp, run__workers=1, segment__ema=0.9)
    run = tmp_path / "run"
    network = train_segmenter(config, run, Silent())
    assert all(parameter.is_cuda and parameter.isfinite().all() for parameter in network.parameters())
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["mean_iou"] <= 1
    assert next(resume_segmenter(run, Silent()).parameters()).is_cuda  # finished: it only loads the network


@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_a_run_with_a_teacher(tmp_path: Path, tiny_config: Any, amp: str) -> None:
    config = tiny_config(run__device="cuda", run__amp=amp, run__workers=2, segment__rounds=2, segment__epochs=1)
    network = train_segmenter(config, tmp_path / "run", Silent())
    assert all(parameter.is_cuda and parameter.isfinite().all() for parameter in network.parameters())
    assert (tmp_path / "run" / "teacher" / "last.pt").is_file()
    assert read_manifest(tmp_path / "run" / "labels")["counts"]["images"] == 24
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["mean_iou"] <= 1


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("amp", ["none", "bf16"])
@pytest.mark.parametrize(
    "changes",
    [
        {"segment__maps_share": 1.0},
        {"segment__maps_share": 0.0, "labels__background": "power"},
        {"maps__method": "attention-gradient", "maps__spread": 1, "maps__gamma": 0.5},
    ],
    ids=["maps alone", "with the decoder", "spread"],
)
def test_no_step_synchronises(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch, amp: str, changes: dict[str, Any]
) -> None:
    """Only the steps are checked; logging, validation and checkpoints between them may synchronise."""
    monkeypatch.setattr("wsss.maps.passes.OTHER_OVERHEAD", 0.01)
    step = Loop._step

    def watched(loop: Loop, batch: Batch) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(loop, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Loop, "_step", watched)
    train_segmenter(tiny_config(run__device="cuda", run__amp=amp, **changes), tmp_path / "run", Silent())


def test_the_optimiser_is_fused_on_the_device(small_network: Callable[..., Network]) -> None:
    network = small_network().to(CUDA)
    assert make_optimizer(ClassifySection(), network).defaults["fused"]


def test_a_run_in_bf16_by_default() -> None:
    device = prepare_device(RunSection())
    assert device.type == "cuda"
    expected = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "none"
    assert number_type(RunSection(), device) == expected
    assert torch.cuda.current_device() == 0
