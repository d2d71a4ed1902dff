"""Time and error of the dense energy: against the exact sum, against the network, and over pixels and classes.

    python benchmarks/energy.py
    python benchmarks/energy.py --device cuda --batch 32 --profile

Value and gradient are always computed together, with the sigmas and the scale of training. Images are blurred noise
with grain. Probabilities are blobs of the present classes; the other classes share a few percent, unequally. The
network's time is that of a plain forward and backward, decoder included, on the same images. The exact sum is quadratic
in the number of pixels, so it is computed for one image and up to AFFORDABLE_SIDE only.

Shape suffixes: B images, K classes, C = K + 1 label channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
import typer
from measuring import machine, ratio_cell, table, take_turns
from step import ACTIVATIONS, TAG_SHARES, TOP, random_batch
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import profile

from wsss.config import Config, resolve
from wsss.machine import pick_device
from wsss.models.checkpoint import build_from
from wsss.training.dense_energy import dense_energy, exact_dense_energy

SMALL_SIDE = 96
"""Pixels a side of the image that is timed against the exact sum."""

SIDES = (112, 224, 448)
CLASSES = ((1, 2), (6, 7), (20, 21), (80, 21), (80, 81))
"""(classes, channels present in each image); no more than 21 channels are present in real images."""

AFFORDABLE_SIDE = 224
"""Side in pixels of the largest image whose exact sum is computed."""

CONTRAST = 4.0
"""Standard deviation of the scores of present channels: most pixels get one probability near 1, edges do not."""

ABSENT = -4.0
"""Mean score of the absent channels; their standard deviation is 1."""

NETWORK, EXACT, OURS = "network, forward and backward", "exact sum", "dense energy"


def scene(batch: int, classes: int, there: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (B, 3, H, W) in [0, 1], and probabilities (B, C, H, W) that vary smoothly over the pixels."""
    images_B3HW = random_batch(batch, max(classes, len(TAG_SHARES)), side, device, seed=0)["image"]
    scores_BChw = torch.randn(batch, classes + 1, 7, 7, generator=torch.Generator().manual_seed(0))
    scores_BChw[:, :there] *= CONTRAST
    scores_BChw[:, there:] += ABSENT
    scores_BCHW = F.interpolate(scores_BChw, size=(side, side), mode="bilinear", align_corners=False)
    return images_B3HW, scores_BCHW.softmax(dim=1).to(device)


def with_gradient(energy: Callable[..., Tensor], images_B3HW: Tensor, soft_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """An energy and its gradient with respect to the probabilities."""
    soft_BCHW = soft_BCHW.detach().requires_grad_()
    value = energy(images_B3HW, soft_BCHW)
    (gradient_BCHW,) = torch.autograd.grad(value, soft_BCHW)
    return value.detach(), gradient_BCHW


def network_step(config: Config, classes: int, images_B3HW: Tensor) -> Callable[[], None]:
    """Forward and backward of the network, on these images."""
    network = build_from(config, [f"class-{k}" for k in range(classes)], decoder=True).to(images_B3HW.device)
    network.train()

    def step() -> None:
        logits_BK, scores_BCHW = network(images_B3HW)
        network.zero_grad(set_to_none=True)
        (logits_BK.float().square().mean() + scores_BCHW.float().square().mean()).backward()

    return step


def rivals_table(config: Config, batch: int, classes: int, rounds: int, device: torch.device) -> str:
    """Time of the dense energy over that of the network on a batch, and over the exact sum on one small image."""
    images_B3HW, soft_BCHW = scene(batch, classes, classes + 1, config.augment.size, device)
    small_B3HW, small_soft_BCHW = scene(1, classes, classes + 1, SMALL_SIDE, device)
    whole: dict[str, Callable[[], object]] = {
        NETWORK: network_step(config, classes, images_B3HW),
        OURS: partial(with_gradient, dense_energy, images_B3HW, soft_BCHW),
    }
    small: dict[str, Callable[[], object]] = {
        EXACT: partial(with_gradient, exact_dense_energy, small_B3HW, small_soft_BCHW),
        OURS: partial(with_gradient, dense_energy, small_B3HW, small_soft_BCHW),
    }
    rows = []
    sizes = ((NETWORK, whole, batch, config.augment.size), (EXACT, small, 1, SMALL_SIDE))
    for rival, functions, count, side in sizes:
        times = take_turns(functions, rounds, device)
        milliseconds = [f"{1000 * times[name].median / count:.1f}" for name in (rival, OURS)]
        rows.append([rival, f"{count} x {side} px", *milliseconds, ratio_cell(times[OURS], times[rival])])
    return table(["rival", "images", "its ms an image", "ours", "ours / rival"], rows)


def errors(classes: int, there: int, side: int, device: torch.device) -> list[str]:
    """Error of value and gradient to the exact sum of one image, in percent."""
    if side > AFFORDABLE_SIDE:
        return ["", ""]
    images_B3HW, soft_BCHW = scene(1, classes, there, side, device)
    value, gradient_BCHW = with_gradient(dense_energy, images_B3HW, soft_BCHW)
    exact, exact_BCHW = with_gradient(exact_dense_energy, images_B3HW, soft_BCHW)
    shares = ((value - exact).abs() / exact, (gradient_BCHW - exact_BCHW).norm() / exact_BCHW.norm())
    return [f"{100 * share.item():.2f}" for share in shares]


def growth_table(sizes: list[tuple[int, int, int]], batch: int, rounds: int, device: torch.device) -> str:
    """Time of each (classes, channels there, side) over that of the first, and its error."""
    names = {
        f"{classes} classes, {there - 1} there, {side} px": (classes, there, side) for classes, there, side in sizes
    }
    functions = {name: partial(with_gradient, dense_energy, *scene(batch, *names[name], device)) for name in names}
    times = take_turns(functions, rounds, device)
    first = next(iter(times.values()))
    rows = [
        [name, f"{1000 * taken.median / batch:.1f}", ratio_cell(taken, first), *errors(*names[name], device)]
        for name, taken in times.items()
    ]
    return table(["size", "ms an image", "over the first", "value: error %", "gradient: error %"], rows)


def print_profile(images_B3HW: Tensor, soft_BCHW: Tensor) -> None:
    """Print the operators that take most of the time."""
    device = images_B3HW.device.type
    with_gradient(dense_energy, images_B3HW, soft_BCHW)
    with profile(activities=ACTIVATIONS[device]) as recorded:
        with_gradient(dense_energy, images_B3HW, soft_BCHW)
    order = f"self_{device}_time_total"
    print(recorded.key_averages().table(sort_by=order, row_limit=TOP, max_name_column_width=50))


def main(
    config: Annotated[str, typer.Option("-c", "--config", help="A preset or YAML file.")] = "voc-animals-cpu",
    batch: Annotated[int, typer.Option(help="Images beside the network; growth is measured on a quarter.")] = 16,
    classes: int = 20,
    device: str = "auto",
    rounds: int = 5,
    profiled: Annotated[bool, typer.Option("--profile", help="Also print where the time goes.")] = False,
) -> None:
    """Print three tables."""
    settings = resolve(config, (), {"model.weights": "none"})
    chosen, side, few = pick_device(device), settings.augment.size, max(1, batch // 4)
    print(f"### Dense energy of {config}: {settings.model.backbone}, {classes} classes ({machine(chosen)})\n")
    print(rivals_table(settings, batch, classes, rounds, chosen), flush=True)
    print(f"\nAs pixels grow, {classes} classes:\n")
    print(growth_table([(classes, classes + 1, side) for side in SIDES], few, rounds, chosen), flush=True)
    print(f"\nAs classes grow, {side} px:\n")
    print(growth_table([(*counts, side) for counts in CLASSES], few, rounds, chosen), flush=True)
    if profiled:
        print()
        print_profile(*scene(few, classes, classes + 1, side, chosen))


if __name__ == "__main__":
    typer.run(main)
