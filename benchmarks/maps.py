"""Time of `class_maps` against the plain forward and against other implementations: the speed tables of RESULTS.md.

    python benchmarks/maps.py --device cpu
    python benchmarks/maps.py --backbone vit_tiny_patch16_224 --sides 64 --images 4 --batch 2 --rounds 1  # seconds
    python benchmarks/maps.py --profile

Weights are random. Images are random and square. The number of tags of an image follows VOC (1.56 on average, at most
6), and batches are formed by number of tags, as `wsss.data.scaled` forms them. In every round each implementation runs
once, in one process; a cell is the median (smallest-largest) ratio over the rounds.

The other implementations are slow, so they get fewer images; `class_maps` is then timed on the same ones:

- materialised: attention as softmax(q k^T) v that keeps every N x N matrix and its gradient, with gradients of the
  parameters, as usual code does, then GETAM's formula. Only the class token's row is multiplied, which makes it faster.
  It is checked that its maps equal ours. A batch is processed in two ways: image by image, with a forward and a
  backward for each (image, class); or, as in published code, with one forward of the whole batch, whose graph is kept,
  and one backward through the whole batch for each (image, class).
- the grad-CAM of two packages, on the same tokens as our `gradcam`. It needs far less work than GETAM: only the
  backward of the last block. They get whole batches: pytorch-grad-cam in one call for each round of tags, torchcam with
  one forward for all rounds. Neither is a dependency: `pip install grad-cam 'torchcam>=0.5'` before the benchmark.

Shape suffixes: B images, C channels, K classes, A heads, N tokens, h x w patch grid, H x W pixels.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from measuring import machine, ratio_cell, table, take_turns
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from wsss.config import Method
from wsss.machine import pick_device
from wsss.maps.generate import class_maps
from wsss.maps.methods import released_coupling
from wsss.maps.passes import one_class_an_image
from wsss.models.network import Network, build_network

CLASSES = 20
TAG_SHARES = (0.62, 0.25, 0.09, 0.03, 0.007, 0.003)
"""Shares of the images with 1, 2, ... 6 tags: 1.56 tags an image."""

COST_TARGETS = ("3.0", "1.9")
SPEED_TARGETS = ("10", "15")
"""Targets of time over the plain forward and of speed-up, each for all blocks and for the last half of them."""

TOLERANCE = 1e-4
CHECKED = 4
"""Number of images whose maps are compared."""


class Batch(NamedTuple):
    """Images in [0, 1] and their tags, on one device."""

    images_B3HW: Tensor
    present_BK: Tensor


def random_network(backbone: str, device: torch.device, classes: int = CLASSES) -> Network:
    """A classifier with random weights."""
    torch.manual_seed(0)
    return build_network(backbone, [f"class {k}" for k in range(classes)], decoder=False).eval().to(device)


def tag_counts(images: int) -> list[int]:
    """Numbers of tags with VOC's shares, rounded to this number of images, smallest first."""
    quantiles = (np.arange(images) + 0.5) / images
    counts: list[int] = (np.searchsorted(np.cumsum(TAG_SHARES), quantiles) + 1).tolist()
    return counts


def random_batches(
    counts: Sequence[int], side: int, batch: int, device: torch.device, classes: int = CLASSES
) -> list[Batch]:
    """Square images with the given number of tags each, in this order."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for first in range(0, len(counts), batch):
        chunk = torch.tensor(counts[first : first + batch])
        order_BK = torch.rand(len(chunk), classes, generator=generator).argsort(dim=1)
        images_B3HW = torch.rand(len(chunk), 3, side, side, generator=generator)
        batches.append(Batch(images_B3HW.to(device), order_BK < chunk[:, None]))
    return batches


def plain_forward(network: Network, batches: Sequence[Batch]) -> None:
    """Compute logits without a graph."""
    with torch.no_grad():
        for batch in batches:
            network.classify(batch.images_B3HW)


def our_maps(
    network: Network, batches: Sequence[Batch], *, start_layer: int = 0, method: Method = "getam"
) -> list[Tensor]:
    """`class_maps` of each batch, (B, K, h, w)."""
    return [class_maps(network, *batch, method=method, start_layer=start_layer)[1] for batch in batches]


class MaterialisedAttention(TorchFunctionMode):
    """Replaces fused attention by softmax(q k^T) v; keeps every matrix and, after a backward, its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.attentions: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query_BAND, key_BAND, value_BAND = args[:3]
        scaled_BAND = query_BAND * query_BAND.shape[-1] ** -0.5
        attention_BANN = (scaled_BAND @ key_BAND.transpose(-2, -1)).softmax(dim=-1)
        attention_BANN.retain_grad()
        self.attentions.append(attention_BANN)
        return attention_BANN @ value_BAND


def materialised_maps(network: Network, batches: Sequence[Batch], *, start_layer: int = 0) -> list[Tensor]:
    """Maps of each batch, (B, K, h, w), from one forward and one backward for each (image, class)."""
    return [_image_by_image(network, *batch, start_layer) for batch in batches]


def _image_by_image(network: Network, images_B3HW: Tensor, present_BK: Tensor, start_layer: int) -> Tensor:
    maps_BKhw = torch.zeros(*present_BK.shape, *grid_of(network, images_B3HW), device=images_B3HW.device)
    for b, k in present_BK.nonzero().tolist():
        with MaterialisedAttention() as explicit:
            logit = network.classify(images_B3HW[b : b + 1])[0, k]
        map_N = _explicit_map(network, explicit, logit, 0, start_layer, keep_graph=False)
        maps_BKhw[b, k] = map_N.reshape(maps_BKhw.shape[2:])
    network.zero_grad()
    return maps_BKhw


def batch_materialised_maps(network: Network, batches: Sequence[Batch], *, start_layer: int = 0) -> list[Tensor]:
    """Maps of each batch, (B, K, h, w), from one forward of the batch and a backward of it for each (image, class)."""
    return [_through_the_batch(network, *batch, start_layer) for batch in batches]


def _through_the_batch(network: Network, images_B3HW: Tensor, present_BK: Tensor, start_layer: int) -> Tensor:
    maps_BKhw = torch.zeros(*present_BK.shape, *grid_of(network, images_B3HW), device=images_B3HW.device)
    with MaterialisedAttention() as explicit:
        logits_BK = network.classify(images_B3HW)
    for b, k in present_BK.nonzero().tolist():
        map_N = _explicit_map(network, explicit, logits_BK[b, k], b, start_layer, keep_graph=True)
        maps_BKhw[b, k] = map_N.reshape(maps_BKhw.shape[2:])
    network.zero_grad()
    return maps_BKhw


def _explicit_map(
    network: Network,
    explicit: MaterialisedAttention,
    logit: Tensor,
    image: int,
    start_layer: int,
    *,
    keep_graph: bool,
) -> Tensor:
    """GETAM map of one image of the batch and one class, from one backward of its logit."""
    network.zero_grad()
    for attention_BANN in explicit.attentions:
        attention_BANN.grad = None
    logit.backward(retain_graph=keep_graph)  # type: ignore[no-untyped-call]
    rows = []
    for attention_BANN in explicit.attentions[start_layer:]:
        assert attention_BANN.grad is not None
        row_of = (slice(image, image + 1), slice(None), slice(0, 1))
        rows.append(released_coupling(attention_BANN.detach()[row_of], attention_BANN.grad[row_of])[0, 0])
    return torch.stack(rows).sum(dim=0)[network.backbone.num_prefix_tokens :]


def grid_of(network: Network, images_B3HW: Tensor) -> tuple[int, int]:
    """Patch grid (h, w) of images."""
    rows, columns = network.backbone.stride
    return -(-images_B3HW.shape[2] // rows), -(-images_B3HW.shape[3] // columns)


class Classifier(nn.Module):
    """The network in the form that the packages need: images to logits."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images_B3HW: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.network.classify(images_B3HW)


def _to_grid(prefix: int, grid: tuple[int, int], tokens_BNC: Tensor) -> Tensor:
    return tokens_BNC[:, prefix:].transpose(1, 2).reshape(len(tokens_BNC), -1, *grid)


def grad_cam_maps(package: Any, network: Network, batches: Sequence[Batch]) -> list[Any]:
    """Maps of pytorch-grad-cam: in round r those of each image's r-th tag, (b, H, W) for the b images that have one."""
    target_of = package.utils.model_targets.ClassifierOutputTarget
    maps = []
    for images_B3HW, present_BK in batches:
        to_grid = partial(_to_grid, network.backbone.num_prefix_tokens, grid_of(network, images_B3HW))
        layers = [network.backbone.gradcam_layer]
        with package.GradCAM(Classifier(network), layers, reshape_transform=to_grid) as cam:
            for chosen_BK in one_class_an_image(present_BK):
                left_B = chosen_BK.any(dim=1)
                targets = [target_of(k) for k in chosen_BK[left_B].int().argmax(dim=1).tolist()]
                maps.append(cam(images_B3HW[left_B], targets))
    network.zero_grad()
    return maps


def torchcam_maps(package: Any, network: Network, batches: Sequence[Batch]) -> list[Tensor]:
    """Maps of torchcam: in round r those of each image's r-th tag, (B, h, w); of class 0 for images without one."""
    maps = []
    for images_B3HW, present_BK in batches:
        to_grid = partial(_to_grid, network.backbone.num_prefix_tokens, grid_of(network, images_B3HW))
        classifier = Classifier(network)
        with package.GradCAM(classifier, network.backbone.gradcam_layer, reshape_transform=to_grid) as cam:
            logits_BK = classifier(images_B3HW)
            rounds = list(one_class_an_image(present_BK))
            for number, chosen_BK in enumerate(rounds):
                classes = chosen_BK.int().argmax(dim=1).tolist()
                maps += cam(classes, logits_BK, normalized=False, retain_graph=number + 1 < len(rounds))
    return maps


PACKAGES: dict[str, tuple[str, Callable[..., Any]]] = {
    "grad-cam": ("pytorch_grad_cam", grad_cam_maps),
    "torchcam": ("torchcam.methods", torchcam_maps),
}


def package_rivals(network: Network, batches: Sequence[Batch]) -> dict[str, Callable[[], Any]]:
    """Functions of the installed packages, by name and version; prints which packages are missing."""
    rivals: dict[str, Callable[[], Any]] = {}
    for name, (module, rival) in PACKAGES.items():
        try:
            package = importlib.import_module(module)
        except ImportError:
            print(f"\n{name} is not installed: no row (pip install {name})")
        else:
            version = importlib.metadata.version(name)
            rivals[f"GradCAM of {name} {version}"] = partial(rival, package, network, batches)
    return rivals


def describe(batches: Sequence[Batch]) -> str:
    """A text with the number of images, tags and batches."""
    images = sum(len(batch.present_BK) for batch in batches)
    tags = sum(int(batch.present_BK.sum()) for batch in batches)
    return f"{images} images with {tags} tags, batches: {len(batches)}"


MATERIALISED: dict[str, Callable[..., list[Tensor]]] = {
    "materialised, a forward and a backward an (image, class)": materialised_maps,
    "materialised, a forward of the batch, a backward through it an (image, class)": batch_materialised_maps,
}


def check_equal(network: Network, batch: Batch, start_layer: int) -> float:
    """Largest relative difference between our maps and the materialised ones, of CHECKED images.

    Raises:
        SystemExit: it is above TOLERANCE.
    """
    few = [Batch(batch.images_B3HW[-CHECKED:], batch.present_BK[-CHECKED:])]
    (ours,) = our_maps(network, few, start_layer=start_layer)
    explicit = [rival(network, few, start_layer=start_layer)[0] for rival in MATERIALISED.values()]
    difference = max(float((ours - theirs).norm() / theirs.norm()) for theirs in explicit)
    if not difference < TOLERANCE:
        raise SystemExit(f"maps from block {start_layer} differ by {difference:.1e} of their norm; nothing to compare")
    return difference


def one_tag(batches: Sequence[Batch]) -> list[Batch]:
    """The same images with the first of their tags alone."""
    return [Batch(images_B3HW, next(iter(one_class_an_image(present_BK)))) for images_B3HW, present_BK in batches]


def cost_table(network: Network, batches: Sequence[Batch], rounds: int) -> str:
    """Table of the time of `class_maps` over that of the plain forward, and over LeGrad of one class an image."""
    starts = starts_of(network)
    rivals: dict[str, Callable[[], Any]] = {"forward": partial(plain_forward, network, batches)}
    for name, start in starts.items():
        rivals[name] = partial(our_maps, network, batches, start_layer=start)
        rivals[f"legrad {start}"] = partial(our_maps, network, one_tag(batches), start_layer=start, method="legrad")
    times = take_turns(rivals, rounds, batches[0].images_B3HW.device)
    rows = [
        [
            name,
            ratio_cell(times[name], times["forward"]),
            target,
            ratio_cell(times[name], times[f"legrad {start}"]),
        ]
        for (name, start), target in zip(starts.items(), COST_TARGETS, strict=True)
    ]
    return table(
        ["class_maps", "time over the plain forward", "target, DeiT-Small", "over LeGrad of one class (target 1)"], rows
    )


def rival_table(network: Network, batches: Sequence[Batch], rounds: int) -> str:
    """Table of the time of the other implementations over that of `class_maps`."""
    starts = starts_of(network)
    ours: dict[str, Callable[[], Any]] = {
        name: partial(our_maps, network, batches, start_layer=start) for name, start in starts.items()
    }
    ours["gradcam"] = partial(our_maps, network, batches, method="gradcam")
    theirs: dict[str, Callable[[], Any]] = {
        **{name: partial(rival, network, batches) for name, rival in MATERIALISED.items()},
        **package_rivals(network, batches),
    }
    differences = [check_equal(network, batches[-1], start) for start in starts.values()]
    times = take_turns({**ours, **theirs}, rounds, batches[0].images_B3HW.device)
    rows = [[name, *(ratio_cell(times[name], times[our]) for our in ours)] for name in theirs]
    rows.append(["target for the second materialised way, DeiT-Small", *SPEED_TARGETS, ""])
    checked = f"Maps agree with the materialised ones within {max(differences):.1e} of their norm."
    return f"{table(['time over', *ours], rows)}\n\n{checked}"


def starts_of(network: Network) -> dict[str, int]:
    """First block of all blocks and of the last half, by name of the row."""
    depth = network.backbone.depth
    return {f"getam, blocks {start}-{depth - 1}": start for start in (0, depth // 2)}


def profile_table(network: Network, batch: Batch) -> str:
    """The most expensive operators of one batch, by their own time."""
    device = batch.images_B3HW.device
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    class_maps(network, *batch)
    with profile(activities=activities) as profiler:
        class_maps(network, *batch)
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return str(profiler.key_averages().table(sort_by=order, row_limit=15))


def main(
    backbone: Annotated[str, typer.Option(help="A timm vision transformer.")] = "deit_small_patch16_224",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    sides: Annotated[str, typer.Option(help="Sides of the images in pixels.")] = "224,384",
    images: Annotated[int, typer.Option(min=1, help="Images for the plain forward and class_maps.")] = 128,
    rival_images: Annotated[int, typer.Option(help="Images for the other ways; 0 leaves them out.")] = 32,
    batch: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 16,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    profiler: Annotated[bool, typer.Option("--profile", help="Profile a batch of median tags; no ratios.")] = False,
) -> None:
    """Print the tables of each side."""
    where = pick_device(device)
    network = random_network(backbone, where)
    print(f"{backbone}, batch {batch}, {rounds} rounds, {machine(where)}", flush=True)
    for side in map(int, sides.split(",")):
        batches = random_batches(tag_counts(images), side, batch, where)
        if profiler:
            middle = batches[len(batches) // 2]
            print(f"\n### {side} px: {describe([middle])}\n\n{profile_table(network, middle)}", flush=True)
            continue
        print(f"\n### {side} px: {describe(batches)}\n\n{cost_table(network, batches, rounds)}", flush=True)
        if rival_images:
            some = random_batches(tag_counts(min(images, rival_images)), side, batch, where)
            print(f"\n### {side} px: {describe(some)}", flush=True)
            print(f"\n{rival_table(network, some, rounds)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
