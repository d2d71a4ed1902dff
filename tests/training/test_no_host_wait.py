"""No step synchronises the device; tested without a GPU, on torch's meta device.

Tensors on the meta device have a shape and no values, so every operation that needs a value on the host raises:
``item``, ``tolist``, ``bool``, ``nonzero``, a mask as an index. The network and the images are on the meta device, the
tags on the host as in a real run. ``NoSynchronisation`` also refuses blocking copies between host and device, which
meta allows and which synchronise CUDA; an index that is a list makes such a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from wsss.data.augment import TrainingImages
from wsss.data.dataset import open_data
from wsss.data.scaled import ScaledBatch, equal_sizes
from wsss.inference.labeller import Labeller
from wsss.inference.labelling import MANY_PIXELS
from wsss.models.checkpoint import build_from
from wsss.models.network import Network
from wsss.reporting import Silent
from wsss.training.classify import ClassifyStep
from wsss.training.loop import Loop, RunContext, steps_of
from wsss.training.segment import SegmentStep
from wsss.training.step import TrainingStep

META = torch.device("meta")
PRESENT = torch.tensor([[True, False], [True, True], [False, False], [False, True]])
SHORT = {
    "model__vit": {"patch_size": 8, "img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3},
    "labels__pamr_iterations": 1,
}
"""A config with as few operators as possible, in which every kind of operator still runs."""

COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}

seen_by_new_torch = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 15), reason="older torch makes meta tensors of lists unseen"
)


class Synchronises(Exception):
    """An operator would synchronise the device."""


class NoSynchronisation(TorchDispatchMode):
    """Refuses operators on tensors of both host and device, except non-blocking copies and scalars of the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        copies = func in COPIES
        places = {tensor.device.type for tensor in tensors if copies or tensor.ndim or tensor.is_meta}
        asynchronous = copies and (kwargs.get("non_blocking") or True in args[2:])
        if (len(places) > 1 and not asynchronous) or (func is torch.ops.aten.lift_fresh.default and "meta" in places):
            raise Synchronises(str(func))
        return result


@pytest.fixture(autouse=True)
def no_autocast_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch has no autocast on the meta device, and the dense energy switches autocast off."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())


@pytest.mark.parametrize(
    "wait",
    [
        lambda there: there.sum().item(),
        lambda there: float(there[0]),
        lambda there: there.tolist(),
        lambda there: there.nonzero(),
        lambda there: there[there > 0],
        lambda there: there[there.argmax()],
        lambda there: there.cpu(),
        lambda there: 1 if there.any() else 0,
        pytest.param(lambda there: there[[0, 2]], marks=seen_by_new_torch),
        lambda there: there[torch.tensor([0, 2])],
        lambda there: there + torch.ones(3),
        lambda there: there.copy_(torch.ones(3)),
        pytest.param(lambda there: torch.tensor([0, 2], device=there.device), marks=seen_by_new_torch),
        lambda there: torch.tensor(3).to(there.device),
    ],
)
def test_synchronisations_are_detected(wait: Callable[[Tensor], Any]) -> None:
    there = torch.empty(3, device=META)
    with NoSynchronisation(), pytest.raises((Synchronises, RuntimeError)):
        wait(there)
    with NoSynchronisation():
        assert (there * 2 + torch.tensor(1.0) + torch.ones(3).to(META, non_blocking=True)).is_meta


@pytest.fixture
def loop_of(tmp_path: Path, tiny_config: Any, scenes: Path) -> Callable[..., Loop]:
    """``loop_of(kind, labels_given=False, started=True, **changes of the config)``, on the meta device."""

    def build(kind: str, *, labels_given: bool = False, started: bool = True, **changes: Any) -> Loop:
        config, train = tiny_config(**SHORT | changes), open_data(scenes, split="train")
        network = build_from(config, train.classes, decoder=kind == "segment")
        images = TrainingImages(train, config.augment, seed=0)
        if kind == "segment":
            total = steps_of(images, config.segment)
            step: TrainingStep = SegmentStep(network, config, total, labels_given=labels_given, started=started)
        else:
            step = ClassifyStep(network, config, steps_of(images, config.classify))
        return Loop(RunContext(tmp_path, config, META, Silent()), step, images, None)

    return build


def take_step(loop: Loop, batch: dict[str, Tensor]) -> None:
    """Take a complete step: losses, backward, clipping, optimiser, moving average, check of the loss."""
    weight = loop.step.network.backbone.vit.patch_embed.proj.weight
    version, taken = weight._version, loop.state.since
    with NoSynchronisation():
        loop._step(batch)
    assert loop.state.since == taken + 1
    assert all(value.is_meta for value in loop.state.sums.values())
    assert weight._version > version


def make_batch(*layers: str) -> dict[str, Tensor]:
    """A batch such as the loader gives."""
    size = (len(PRESENT), 32, 40)
    more = {name: torch.zeros(size, dtype=torch.uint8) for name in layers}
    return {"image": torch.zeros(size[0], 3, *size[1:], dtype=torch.uint8), "present": PRESENT, **more}


TAUGHT = {"segment__maps_share": 0.0}
ALONE = {"segment__maps_share": 1.0}


@pytest.mark.parametrize(
    "changes",
    [
        ALONE | {"segment__ema": 0.0, "segment__optimizer": "sgd-poly"},
        ALONE | {"labels__background": "power", "labels__pamr_stride": 2, "groups": 3},
        ALONE | {"layers": ("saliency",)},
        TAUGHT | {"labels__background": "band", "groups": 3},
        TAUGHT | {"labels__background": "power", "segment__weight_energy": 0.0},
        TAUGHT | {"segment__ema": 0.0, "labels__pamr_iterations": 0, "layers": ("saliency",)},
        TAUGHT | {"maps__method": "attention-gradient", "maps__spread": 1, "maps__gamma": 0.5, "groups": 3},
        ALONE | {"maps__method": "getam", "maps__spread": 1, "maps__start_layer": 1},
        ALONE | {"maps__method": "getam", "maps__coupling": "paper", "model__readout": "both"},
        *(
            ALONE | {"maps__method": method}
            for method in ("chefer", "legrad", "gradcam", "cam", "attention", "rollout")
        ),
    ],
    ids=lambda changes: " ".join(f"{name.split('__')[-1]}={value}" for name, value in changes.items()),
)
def test_end_to_end(loop_of: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    groups, layers = changes.get("groups", 1), changes.get("layers", ())
    monkeypatch.setattr("wsss.maps.passes.OTHER_OVERHEAD", 4096.0 if groups == 1 else 0.01)
    loop = loop_of("segment", **{name: value for name, value in changes.items() if "__" in name})
    passes: list[Any] = []
    loop.step.network.backbone.register_forward_hook(lambda *arguments: passes.append(arguments))
    take_step(loop, make_batch(*layers))
    assert len(passes) == groups


@pytest.mark.parametrize(("optimizer", "clip_norm"), [("adamw", 1.0), ("sgd-poly", 1.0), ("sgd-poly", 0.0)])
def test_classification(loop_of: Callable[..., Loop], optimizer: str, clip_norm: float) -> None:
    loop = loop_of("classify", classify__ema=0.9, classify__optimizer=optimizer, classify__clip_norm=clip_norm)
    for _ in range(2):  # an average begins with the second
        take_step(loop, make_batch())


def test_the_classification_phase(loop_of: Callable[..., Loop]) -> None:
    take_step(loop_of("segment", started=False, segment__cls_share=1.0), make_batch())


@pytest.mark.parametrize("layers", [("label",), ("label", "saliency")])
def test_labels_from_disk(loop_of: Callable[..., Loop], layers: tuple[str, ...]) -> None:
    take_step(loop_of("segment", labels_given=True), make_batch(*layers))


@pytest.mark.parametrize("decoder", [False, True])
def test_pseudo_labels_until_they_are_copied_to_the_host(
    tmp_path: Path, small_network: Callable[..., Network], tiny_config: Any, decoder: bool
) -> None:
    """The work of make-pseudo on the device: scales, flips, decoder probabilities, the refinement of each group."""
    network, config = small_network(depth=2, decoder=decoder).to(META), tiny_config(maps__flip=True, **SHORT)
    present_BK = torch.tensor([[True, False], [True, True], [False, False], [False, True]])
    sizes = [(30, 41), (31, 40), (31, 40), (31, 40)]
    images = [torch.zeros(*size, 3, dtype=torch.uint8) for size in sizes]
    scaled = [torch.zeros(4, 3, *size, dtype=torch.uint8) for size in ((32, 40), (48, 56))]
    batch = ScaledBatch([], sizes, scaled, images)
    labeller = Labeller(network, config, META)
    with NoSynchronisation():
        reading = labeller.read(batch.at_scales(META), present_BK)
        for group in equal_sizes(sizes, range(4), MANY_PIXELS):
            refined = labeller.refine([images[i] for i in group], sizes[group[0]], reading, group)
            assert refined.scores.values_Rhw.is_meta
            assert (refined.background_Bhw is not None) == decoder
