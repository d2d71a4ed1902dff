"""The same numbers on a CUDA device as on the CPU, and half precision there."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from wsss.data.open import open_data
from wsss.labels.completion import BackgroundBand, complete_labels
from wsss.labels.pamr import pamr
from wsss.maps.generate import class_maps
from wsss.models.network import Network
from wsss.reporting import Silent
from wsss.training.segment import SegmentTask
from wsss.training.start import resume_segmenter, train_segmenter

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PRESENT = torch.tensor([[True, False], [True, True]])


@pytest.fixture(autouse=True)
def exact_products() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def sharp(network: Network) -> Network:
    torch.manual_seed(5)
    for block in network.backbone.vit.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.3)
    return network


@pytest.mark.parametrize("method", ["getam", "attention-gradient", "gradcam", "rollout", "chefer", "attention", "cam"])
@pytest.mark.parametrize("backbone", ["deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_gap_224"])
def test_class_maps_equal_those_of_the_cpu(small_network: Callable[..., Network], backbone: str, method: Any) -> None:
    network = sharp(small_network(backbone, decoder=False))
    torch.manual_seed(0)
    images_B3HW = torch.rand(2, 3, 40, 56)
    logits_BK, maps_BKhw = class_maps(network, images_B3HW, PRESENT, method=method)
    on_device = class_maps(network.cuda(), images_B3HW.cuda(), PRESENT.cuda(), method=method)
    torch.testing.assert_close(on_device[0].cpu(), logits_BK, rtol=1e-4, atol=1e-5)
    error = (on_device[1].cpu() - maps_BKhw).norm() / maps_BKhw.norm()
    assert error < 1e-4


def test_pamr_and_completion_equal_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    images_B3HW, scores_BKHW = torch.rand(2, 3, 48, 64), torch.rand(2, 2, 48, 64)
    here = pamr(images_B3HW, scores_BKHW, PRESENT)
    there = pamr(images_B3HW.cuda(), scores_BKHW.cuda(), PRESENT.cuda())
    torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-5)
    rule = BackgroundBand(low=0.4, high=0.6)
    label_HW = complete_labels(here[1], PRESENT[1], background=rule)
    on_device_HW = complete_labels(here[1].cuda(), PRESENT[1].cuda(), background=rule)
    assert on_device_HW.is_cuda
    assert torch.equal(on_device_HW.cpu(), label_HW)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_a_step_of_half_precision(tiny_config: Any, small_network: Callable[..., Network], kind: torch.dtype) -> None:
    network = sharp(small_network()).cuda().train()
    torch.manual_seed(0)
    batch = {"image": torch.rand(2, 3, 32, 40).cuda(), "present": PRESENT.cuda()}
    task = SegmentTask(tiny_config(), None, torch.device("cuda"), from_disk=False, started=True)
    with torch.autocast("cuda", dtype=kind):
        losses = task.losses(network, batch, 0, 10)
    torch.stack([value.float() for value in losses.values()]).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert all(math.isfinite(value.item()) for value in losses.values())


@pytest.mark.parametrize("amp", ["none", "bf16", "fp16"])
def test_end_to_end_training(tmp_path: Path, tiny_config: Any, scenes: Path, amp: str) -> None:
    config = tiny_config(run__device="cuda", run__amp=amp, run__workers=1, segment__ema=0.9)
    run = tmp_path / "run"
    network = train_segmenter(config, run, Silent())
    assert all(parameter.is_cuda and parameter.isfinite().all() for parameter in network.parameters())
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["mean_iou"] <= 1
    resume_segmenter(run, Silent())  # finished: nothing but loading, onto the device
    assert len(open_data(scenes, split="train")) == 24
