"""Memory of `class_maps` against a plain forward and backward and materialised attention: a table of RESULTS.md.

    python benchmarks/memory.py --device cpu
    python benchmarks/memory.py --sides 1024 --limit-gib 16
    python benchmarks/memory.py --images 1000  # does memory grow over many images?
    python benchmarks/memory.py --images 1000 --backbone deit_tiny_patch16_224 --sides 64  # the same in minutes
    python benchmarks/memory.py --photos 6,12,48 --labels 2,21,80 --count 1,8  # whole commands, see photo_memory.py

A cell is the memory that one call adds at its peak: on a CPU to the resident size of a new process, on a GPU to the
allocated memory. Weights are random; there is one image, with one tag.

- forward + backward: from the image to the logit of one class and back to the pixels, with fused attention and frozen
  parameters.
- class_maps: GETAM, all blocks.
- materialised: softmax(q k^T) v that keeps every N x N matrix and its gradient, with gradients of the parameters, as
  usual code does (see `maps.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Annotated

import torch
import typer
from maps import Batch, materialised_maps, our_maps, random_batches, random_network, tag_counts
from measuring import MEBIBYTE, added_memory, machine, resident_memory, table
from photo_memory import print_photos

from wsss.machine import pick_device
from wsss.maps.generate import frozen
from wsss.models.network import Network

GIBIBYTE = 1024 * MEBIBYTE
TARGET = "ours / forward + backward at 1024 px: target 1.4"
BATCH = 10
EVERY = 100
"""Images between two measurements of the memory."""


@cache
def network_on(backbone: str, device: str) -> Network:
    """A network with random weights, made once in a process, so that its weights are not counted."""
    return random_network(backbone, torch.device(device))


def one_image(network: Network, side: int, device: str, warm_up: bool) -> Batch:
    """A batch of one image with one tag; its side is one patch for the warm-up."""
    (batch,) = random_batches([1], network.backbone.stride[0] if warm_up else side, 1, torch.device(device))
    return batch


def forward_backward(backbone: str, side: int, device: str, *, warm_up: bool) -> None:
    """Compute the gradient of one logit with respect to the image."""
    network = network_on(backbone, device)
    images_B3HW, present_BK = one_image(network, side, device, warm_up)
    with frozen(network):
        images_B3HW.requires_grad_()
        torch.autograd.grad(network.classify(images_B3HW)[present_BK].sum(), images_B3HW)


def ours(backbone: str, side: int, device: str, *, warm_up: bool) -> None:
    """Compute ``class_maps`` of one image."""
    network = network_on(backbone, device)
    our_maps(network, [one_image(network, side, device, warm_up)])


def materialised(backbone: str, side: int, device: str, *, warm_up: bool) -> None:
    """Compute the maps of one image with materialised attention."""
    network = network_on(backbone, device)
    materialised_maps(network, [one_image(network, side, device, warm_up)])


def materialised_estimate(backbone: str, side: int) -> float:
    """GiB of the N x N matrices: one and its gradient for every block, and two temporary ones."""
    network = network_on(backbone, "cpu")
    blocks = network.backbone.vit.blocks
    rows, columns = network.backbone.stride
    tokens = -(-side // rows) * -(-side // columns) + network.backbone.num_prefix_tokens
    matrices = (2 * len(blocks) + 2) * blocks[0].attn.num_heads
    return float(4 * matrices * tokens**2 / GIBIBYTE)


def side_row(backbone: str, side: int, device: torch.device, limit_gib: float) -> list[str]:
    """One row of the table, in MiB."""
    added = partial(added_memory, device)
    plain = added(forward_backward, backbone, side, str(device))
    our = added(ours, backbone, side, str(device))
    estimate = materialised_estimate(backbone, side)
    if estimate > limit_gib:
        theirs, ratio = f"skipped (about {estimate:.0f} GiB)", ""
    else:
        explicit = added(materialised, backbone, side, str(device))
        theirs, ratio = f"{explicit:.0f}", f"{explicit / our:.1f}"
    return [str(side), f"{plain:.0f}", f"{our:.0f}", f"{our / plain:.2f}", theirs, ratio]


def memory_over(network: Network, images: int, side: int, device: torch.device) -> Iterator[tuple[int, float]]:
    """Yield (number of images done, MiB in use) after each hundred images."""
    counts, readings = tag_counts(images), -(-images // EVERY)
    done = 0
    for number in range(readings):
        share = counts[number::readings]  # every hundred images have the same numbers of tags
        for first in range(0, len(share), BATCH):
            our_maps(network, random_batches(share[first : first + BATCH], side, BATCH, device))
        done += len(share)
        used = torch.cuda.memory_allocated(device) if device.type == "cuda" else resident_memory()
        yield done, used / MEBIBYTE


def print_growth(backbone: str, images: int, side: int, device: torch.device) -> None:
    """Print the memory in use over many images, in batches of ten; the number of tags follows VOC."""
    found = list(memory_over(random_network(backbone, device), images, side, device))
    print(f"\n### class_maps, getam, all blocks: {images} images of {side} px, batch {BATCH}\n")
    print(table(["images", "MiB in use"], [[str(done), f"{used:.0f}"] for done, used in found]))
    (first, before), (last, after) = found[0], found[-1]
    print(f"\nGrowth from image {first} to image {last}: {after - before:+.1f} MiB")


def main(
    backbone: Annotated[str, typer.Option(help="A timm vision transformer.")] = "deit_small_patch16_224",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    sides: Annotated[str, typer.Option(help="Sides of the images in pixels.")] = "224,384,512,768,1024,1536",
    limit_gib: Annotated[float, typer.Option(help="Skip the materialised way above this estimate.")] = 8.0,
    images: Annotated[int, typer.Option(help="Instead of the table: memory over so many of the first side.")] = 0,
    photos: Annotated[str, typer.Option(help="Instead: whole commands on photos of so many megapixels.")] = "",
    labels: Annotated[str, typer.Option(help="With --photos: labels, background included.")] = "2,21,80",
    count: Annotated[str, typer.Option(help="With --photos: photos in the folder.")] = "1",
) -> None:
    """Print one table."""
    where = pick_device(device)
    print(f"{backbone}, {machine(where)}", flush=True)
    if photos:
        sizes, counts = [float(size) for size in photos.split(",")], [int(number) for number in count.split(",")]
        print_photos(sizes, [int(number) for number in labels.split(",")], counts)
        return
    if images:
        print_growth(backbone, images, int(sides.split(",")[0]), where)
        return
    rows = [side_row(backbone, int(side), where, limit_gib) for side in sides.split(",")]
    header = ["side, px", "forward + backward, MiB", "class_maps, MiB", "ratio", "materialised, MiB", "over class_maps"]
    print(f"\n{table(header, rows)}\n\n{TARGET}.")


if __name__ == "__main__":
    typer.run(main)
