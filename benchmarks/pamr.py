"""Time and memory of PAMR against a readable version, and the effect of its stride on time and labels.

    python benchmarks/pamr.py
    python benchmarks/pamr.py --run RUN --data DIR --split train --limit 200

The readable version holds every neighbour of image and maps in memory at once and refines all classes. `pamr` refines
the present classes only; VOC has 1.56 an image. It is checked first that both give the same scores within 1e-5. With
--run, pseudo labels of that run are made and scored at every stride (masks are read for scoring only), and the share
of their pixels that bfloat16 would change is counted.

Shape suffixes: B images, K classes, N neighbours, S samples, H x W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
from measuring import Times, added_memory, few, machine, ratio_cell, table, take_turns
from torch import Tensor
from torch.nn import functional as F

from wsss.config import Config, LabelsSection
from wsss.data.dataset import open_data
from wsss.data.records import TaggedSet
from wsss.data.scaled import ScaledImages, load_batches
from wsss.inference.evaluate import evaluate_labels
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.settings import map_scales
from wsss.labels.pamr import CONTRAST, DILATIONS, FLAT, ITERATIONS, pamr, pamr_affinity, pamr_apply, replicate
from wsss.labels.pamr import neighbours as shifted
from wsss.labels.recipe import Refined, complete, follow_edges
from wsss.machine import pick_device
from wsss.maps.generate import multiscale_scores
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import MapSettings
from wsss.maps.scores import normalise_scores
from wsss.models.checkpoint import file_hash, load_network
from wsss.models.network import Network
from wsss.reporting import Silent

TAGS = (1, 1, 1, 1, 1, 2, 2, 2, 3)
"""Present classes of each image: 14 in 9 images, 1.56 an image."""

STRIDES = (1, 2, 4)
TOLERANCE = 1e-5
SMALLEST = (64, 64)
"""Size of the image for the warm-up of a process before its memory is measured."""

READABLE, OURS = "readable, all classes", "pamr, present classes"
TARGETS = "Targets of pamr: 3 times faster, a third of the memory."


def readable_pamr(images_B3HW: Tensor, maps_BKHW: Tensor) -> Tensor:
    """The formula of `wsss.labels.pamr`, line by line."""
    samples_B3SHW = torch.cat([windows(images_B3HW, dilation) for dilation in DILATIONS], dim=2)
    unit_B3HW = FLAT + CONTRAST * samples_B3SHW.std(dim=2)
    difference_B3NHW = (neighbours(images_B3HW) - images_B3HW[:, :, None]).abs()
    weights_BNHW = (-difference_B3NHW / unit_B3HW[:, :, None]).mean(dim=1).softmax(dim=1)
    for _ in range(ITERATIONS):
        maps_BKHW = (weights_BNHW[:, None] * neighbours(maps_BKHW)).sum(dim=2)
    return maps_BKHW


def windows(maps_BKHW: Tensor, dilation: int) -> Tensor:
    """The nine samples of the 3x3 window around each pixel: (B, K, 9, H, W)."""
    padded = F.pad(maps_BKHW, (dilation,) * 4, mode="replicate")
    return F.unfold(padded, 3, dilation=dilation).view(*maps_BKHW.shape[:2], 9, *maps_BKHW.shape[2:])


def neighbours(maps_BKHW: Tensor) -> Tensor:
    """The samples of the windows without the middle one, at all dilations: (B, K, N, H, W)."""
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    return torch.cat([windows(maps_BKHW, dilation)[:, :, others] for dilation in DILATIONS], dim=2)


def scene(size: tuple[int, int], classes: int, tags: tuple[int, ...], device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Random images and class scores on ``device``, and the present classes on the host."""
    generator = torch.Generator().manual_seed(0)
    images_B3HW = torch.rand(len(tags), 3, *size, generator=generator)
    scores_BKHW = torch.rand(len(tags), classes, *size, generator=generator)
    present_BK = torch.arange(classes) < torch.tensor(tags)[:, None]
    return images_B3HW.to(device), scores_BKHW.to(device), present_BK


def strided(stride: int) -> str:
    """Name of the row of a stride."""
    return f"refine, stride {stride}"


def work(name: str, images_B3HW: Tensor, scores_BKHW: Tensor, present_BK: Tensor) -> Tensor:
    """Refine a batch in the way that the row of this name stands for."""
    if name == READABLE:
        return readable_pamr(images_B3HW, scores_BKHW)
    if name == OURS:
        return pamr(images_B3HW, PresentMaps.from_dense(scores_BKHW, present_BK)).values_Rhw
    section = LabelsSection(pamr_stride=int(name.rsplit(maxsplit=1)[1]))
    refined = follow_edges(images_B3HW, PresentMaps.from_dense(scores_BKHW, present_BK), section)
    return normalise_scores(refined).values_Rhw


def work_on_one(name: str, size: tuple[int, int], classes: int, device: str, *, warm_up: bool = False) -> None:
    """Make one image with two present classes and refine it."""
    work(name, *scene(SMALLEST if warm_up else size, classes, (2,), device))


def memory(name: str, size: tuple[int, int], classes: int, device: str) -> float:
    """Mebibytes that one image adds at the peak."""
    return added_memory(torch.device(device), work_on_one, name, size, classes, device)


def check_equal(size: tuple[int, int], classes: int, device: str) -> float:
    """Greatest difference between the scores of the two versions.

    Raises:
        SystemExit: it exceeds TOLERANCE.
    """
    images_B3HW, scores_BKHW, present_BK = scene(size, classes, (2,), device)
    ours_BKHW = pamr(images_B3HW, PresentMaps.from_dense(scores_BKHW, present_BK)).dense()
    theirs_BKHW = readable_pamr(images_B3HW, scores_BKHW).masked_fill(~present_BK[..., None, None].to(device), 0.0)
    greatest = float((ours_BKHW - theirs_BKHW).abs().max())
    if not greatest <= TOLERANCE:
        raise SystemExit(f"the versions differ by {greatest:.2g}, more than {TOLERANCE}")
    return greatest


def speeds(size: tuple[int, int], classes: int, device: str, rounds: int) -> dict[str, Times]:
    """Seconds an image of every row. The readable version gets one image: its time does not depend on the tags."""
    batch, single = scene(size, classes, TAGS, device), scene(size, classes, TAGS[:1], device)

    def rival(name: str) -> Callable[[], Tensor]:
        return lambda: work(name, *(single if name == READABLE else batch))

    names = [READABLE, OURS, *map(strided, STRIDES)]
    times = take_turns({name: rival(name) for name in names}, rounds, torch.device(device))
    images = {name: 1 if name == READABLE else len(TAGS) for name in names}
    return {name: Times(tuple(seconds / images[name] for seconds in times[name].seconds)) for name in names}


def figures(size: tuple[int, int], classes: int, device: str, rounds: int) -> str:
    """The table of time and memory."""
    times = speeds(size, classes, device, rounds)
    added = {name: memory(name, size, classes, device) for name in times}
    rows = [
        [
            name,
            f"{1000 * taken.median:.0f}",
            ratio_cell(times[READABLE], taken),
            f"{added[name]:.0f}",
            f"{added[name] / added[READABLE]:.2f}",
        ]
        for name, taken in times.items()
    ]
    return table(["PAMR", "ms an image", "times faster (range)", "MiB", "MiB / readable"], rows)


def labels_at(
    stride: int, network: Network, tagged: TaggedSet, config: Config, sha256: str, device: torch.device
) -> list[str]:
    """A row of the label table: score of the pseudo labels made with one stride."""
    labels = config.labels.model_copy(update={"pamr_stride": stride})
    config = config.model_copy(update={"labels": labels})
    with TemporaryDirectory() as folder:
        out = Path(folder) / "pseudo"
        began = time.perf_counter()
        make_pseudo_labels(network, tagged, out, config, Silent(), device=device, checkpoint_sha256=sha256)
        seconds = time.perf_counter() - began
        report = evaluate_labels(out, tagged)
    shares = (report.mean_iou, report.coverage)
    return [str(stride), *(f"{100 * share:.2f}" for share in shares), f"{1000 * seconds / len(tagged):.0f}"]


def label_table(run: Path, data: Path, split: str, limit: int, device: torch.device) -> str:
    """Table of the scores of a run's pseudo labels, made with its own config, at every stride."""
    network, config, path = load_network(run)
    tagged = few(open_data(data, split=split, classes=network.classes), limit)
    rows = [labels_at(stride, network, tagged, config, file_hash(path), device) for stride in STRIDES]
    header = ["stride", "mIoU %", "coverage %", "ms an image, maps and all"]
    return f"### Pseudo labels of {tagged.split}: {len(tagged)} images, {path}\n\n{table(header, rows)}"


def bf16_weights(affinity_BNHW: Tensor, maps_BRHW: Tensor) -> Tensor:
    """PAMR with weights stored in bfloat16, half the memory, and sums in float32."""
    return pamr_apply(affinity_BNHW.bfloat16().float(), maps_BRHW)


def bf16_throughout(affinity_BNHW: Tensor, maps_BRHW: Tensor) -> Tensor:
    """PAMR with weights, maps and the sum over the neighbours in bfloat16; each product and sum is rounded."""
    weights_N = affinity_BNHW.bfloat16().unsqueeze(2).unbind(dim=1)
    maps_BRHW = maps_BRHW.bfloat16()
    for _ in range(ITERATIONS):
        padded = replicate(maps_BRHW.float(), max(DILATIONS)).bfloat16()
        maps_BRHW = torch.zeros_like(maps_BRHW)
        for weight_B1HW, neighbour_BRHW in zip(weights_N, shifted(padded, DILATIONS), strict=True):
            maps_BRHW.addcmul_(weight_B1HW, neighbour_BRHW)
    return maps_BRHW.float()


def bf16_sums_in_float(affinity_BNHW: Tensor, maps_BRHW: Tensor) -> Tensor:
    """PAMR with weights and maps stored in bfloat16 between iterations, and the sum over the neighbours in float32."""
    weights_BNHW = affinity_BNHW.bfloat16().float()
    for _ in range(ITERATIONS):
        maps_BRHW = pamr_apply(weights_BNHW, maps_BRHW.bfloat16().float(), iterations=1)
    return maps_BRHW


HALVES = {"weights": bf16_weights, "weights and maps": bf16_sums_in_float, "everything": bf16_throughout}
"""Variants of PAMR by what they store in bfloat16."""


def half_table(run: Path, data: Path, split: str, limit: int) -> str:
    """Table of the share of pixels whose pseudo label bfloat16 changes; maps and rule are those of the run's config."""
    network, config, path = load_network(run)
    tagged = few(open_data(data, split=split, classes=network.classes), limit)
    settings, section = MapSettings.of(config.maps), config.labels
    pixels, changed = 0, dict.fromkeys(HALVES, 0)
    images = ScaledImages(tagged.records, map_scales(config), network.backbone.stride, 2**20, images=True)
    for batch in load_batches(images, 0):
        present_BK = torch.from_numpy(np.stack([tagged.present(record) for record in batch.records]))
        _, scores = multiscale_scores(network, batch.at_scales(torch.device("cpu")), present_BK, settings)
        for i, image_HW3 in enumerate(batch.images):
            image_B3HW = image_HW3.permute(2, 0, 1)[None].float() / 255
            one = scores.select([i]).at_size((image_HW3.shape[0], image_HW3.shape[1]))
            affinity_BNHW = pamr_affinity(image_B3HW)

            def label(refined_BRHW: Tensor, one: PresentMaps = one) -> Tensor:
                refined = Refined(normalise_scores(one.with_values(refined_BRHW[0])), None, section.opening)
                return complete(refined, one.size, section)[0]

            maps_BRHW = one.values_Rhw[None]
            exact_HW = label(pamr_apply(affinity_BNHW, maps_BRHW))
            pixels += exact_HW.numel()
            for name, half in HALVES.items():
                changed[name] += int((label(half(affinity_BNHW, maps_BRHW)) != exact_HW).sum())
    rows = [[name, f"{100 * count / pixels:.3f}"] for name, count in changed.items()]
    title = f"### bfloat16 in PAMR, {tagged.split}: {len(tagged)} images, {path}"
    return f"{title}\n\n{table(['in bfloat16', 'pixels changed, % (target 0.1)'], rows)}"


def main(
    height: int = 375,
    width: int = 500,
    classes: int = 20,
    rounds: int = 5,
    device: str = "auto",
    run: Annotated[Path | None, typer.Option(help="Also score the pseudo labels of this run.")] = None,
    data: Path | None = None,
    split: str = "train",
    limit: Annotated[int, typer.Option(help="Number of images to label, evenly spread; 0 labels all.")] = 0,
) -> None:
    """Print the table of time and memory and, with a run, that of its pseudo labels."""
    if run is not None and data is None:
        raise typer.BadParameter("--run needs --data DIR")
    where, size = pick_device(device), (height, width)
    greatest = check_equal(size, classes, str(where))
    print(f"### PAMR, {height} x {width}, {classes} classes, {sum(TAGS) / len(TAGS):.2f} present ({machine(where)})\n")
    print(figures(size, classes, str(where), rounds))
    print(
        f"\n{TARGETS} Greatest difference between the two: {greatest:.1g}. MiB: one image of two classes.", flush=True
    )
    if run is not None and data is not None:
        print(f"\n{half_table(run, data, split, limit)}\n\n{label_table(run, data, split, limit, where)}")


if __name__ == "__main__":
    typer.run(main)
