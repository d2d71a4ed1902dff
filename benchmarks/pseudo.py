"""Time of `wsss make-pseudo` against its network alone and against the usual loop: the table of RESULTS.md.

    python benchmarks/pseudo.py --data DIR --split val --images 24
    python benchmarks/pseudo.py --data DIR --split val --images 0 --baseline-images 0 --device cuda --amp bf16
    python benchmarks/pseudo.py --growth  # time and memory over the number of images

Maps are the published ones (GETAM, all blocks, neither gamma nor spread), labels are made by the power rule. Each way
runs once in every round; times are divided by the number of images, so the slow way may get fewer.

- make-pseudo: all of `make_pseudo_labels`, from the headers of the images to the manifest.
- network alone: the class scores of the same batches, which are already decoded and resized in memory.
- the usual loop: one image after the other; at each scale, for each class, one forward and one backward through
  softmax(q k^T) v that keeps every N x N matrix and parameter gradients (see `maps.py`); the readable PAMR over all
  classes (see `pamr.py`); the same completion; `cv2.imwrite`. It is checked that its labels equal those of make-pseudo.

Shape suffixes: B images, K classes, H x W pixels, h x w patch grid.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from maps import Batch, materialised_maps
from measuring import CPU, Times, added_memory, machine, ratio_cell, synchronise, table
from numpy.typing import NDArray
from pamr import readable_pamr
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from wsss.config import Config, resolve
from wsss.data.dataset import open_data
from wsss.data.images import read_image
from wsss.data.masks import read_mask
from wsss.data.records import Record, TaggedSet
from wsss.data.scaled import ScaledBatch, ScaledImages, resize, scaled_size
from wsss.data.scenes import SceneSettings, write_scenes
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.settings import batch_pixels, map_scales
from wsss.labels.recipe import Refined, complete
from wsss.machine import autocast, pick_device
from wsss.maps.generate import multiscale_scores
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import MapSettings
from wsss.maps.scores import normalise_scores
from wsss.models.checkpoint import load_network
from wsss.models.network import Network, build_network
from wsss.reporting import Silent

PUBLISHED = {
    **{"maps.method": "getam", "maps.start_layer": 0, "maps.gamma": 1.0, "maps.spread": 0, "maps.flip": False},
    "labels.background": "power",
}
WHOLE, ALONE, LOOP = "make-pseudo", "network alone", "the usual loop"
OVER_NETWORK, OVER_LOOP = 1.3, 5.0
"""Targets: time of make-pseudo over its network on a GPU, at most; of the usual loop over make-pseudo, at least."""

TOLERANCE = 0.001
"""Largest share of pixels in which the labels of make-pseudo and of the usual loop may differ."""

COUNTS = (10, 100, 1000)
SIDE = 64
TINY = {"patch_size": 8, "img_size": SIDE, "embed_dim": 48, "depth": 4, "num_heads": 3}
CLASSES = ("bee", "ladybird")
TOP = 15
"""Lines of the profile."""


@dataclass(frozen=True, slots=True)
class Work:
    """Images to label, the network and config that label them, and the device."""

    network: Network
    tagged: TaggedSet
    config: Config
    device: torch.device

    def first(self, images: int) -> Work:
        """The same with fewer images, evenly spread; 0 keeps all."""
        step = max(1, len(self.tagged) // images) if images else 1
        records = self.tagged.records[::step][: images or None]
        return replace(self, tagged=replace(self.tagged, records=records))

    def scaled(self) -> ScaledImages:
        """Its batches, as make-pseudo forms them."""
        pixels = batch_pixels(self.config.run, self.device)
        stride = self.network.backbone.stride
        return ScaledImages(self.tagged.records, map_scales(self.config), stride, pixels, images=True)

    def present(self, record: Record) -> Tensor:
        """Image-level labels, (K,) bool."""
        return torch.from_numpy(self.tagged.present(record))


def make_pseudo(work: Work, out: Path) -> None:
    """Run make-pseudo; it writes label maps to ``out/labels``."""
    make_pseudo_labels(
        work.network, work.tagged, out, work.config, Silent(), device=work.device, checkpoint_sha256="benchmark"
    )


def network_alone(work: Work, batches: Sequence[ScaledBatch]) -> None:
    """Compute the class scores of batches in memory."""
    maps = work.config.maps
    for batch in batches:
        present_BK = torch.stack([work.present(record) for record in batch.records])
        with autocast(work.config.run, work.device):
            multiscale_scores(
                work.network, batch.at_scales(work.device), present_BK, MapSettings.of(maps), flip=maps.flip
            )


def usual_loop(work: Work, out: Path) -> None:
    """Run the usual loop over images, scales and classes; it writes label maps to ``out/labels``."""
    (out / "labels").mkdir(parents=True)
    for record in work.tagged.records:
        label_HW = usual_label(work, read_image(record.image), work.present(record))
        cv2.imwrite(str(out / "labels" / f"{record.name}.png"), label_HW)


def usual_label(work: Work, image_HW3: NDArray[np.uint8], present_K: Tensor) -> NDArray[np.uint8]:
    """The pseudo label of an image, (H, W)."""
    image_13HW = torch.from_numpy(image_HW3).permute(2, 0, 1)[None].to(work.device).float() / 255
    scores_1Khw = usual_scores(work, torch.from_numpy(image_HW3), present_K[None])
    scores_1KHW = F.interpolate(scores_1Khw, size=image_13HW.shape[2:], mode="bilinear", align_corners=False)
    with torch.no_grad():
        maps = PresentMaps.from_dense(readable_pamr(image_13HW, scores_1KHW), present_K[None])
    refined, size = Refined(normalise_scores(maps), None, work.config.labels.opening), scores_1KHW.shape[2:]
    label: NDArray[np.uint8] = complete(refined, (size[0], size[1]), work.config.labels)[0].cpu().numpy()
    return label


def usual_scores(work: Work, image_HW3: Tensor, present_1K: Tensor) -> Tensor:
    """Class scores of all scales and flips, (1, K, h, w) on the grid of the largest."""
    maps, stride = work.config.maps, work.network.backbone.stride
    start = MapSettings.of(maps).first_block(work.network.backbone.depth)
    found: list[Tensor] = []
    for side in sorted(maps.scales or (), reverse=True):
        scaled_3HW = resize(image_HW3, scaled_size(image_HW3.shape[0], image_HW3.shape[1], side, stride))
        scaled_13HW = scaled_3HW[None].to(work.device).float() / 255
        for mirrored in (False, True) if maps.flip else (False,):
            batch = Batch(scaled_13HW.flip(3) if mirrored else scaled_13HW, present_1K)
            (maps_1Khw,) = materialised_maps(work.network, [batch], start_layer=start)
            turned_1Khw = maps_1Khw.flip(3) if mirrored else maps_1Khw
            scores = normalise_scores(PresentMaps.from_dense(turned_1Khw, present_1K)).dense()
            if found and scores.shape != found[0].shape:
                scores = F.interpolate(scores, size=found[0].shape[2:], mode="bilinear", align_corners=False)
            found.append(scores)
    return normalise_scores(PresentMaps.from_dense(torch.stack(found).sum(dim=0), present_1K)).dense()


def compare(work: Work, few: Work, rounds: int) -> tuple[dict[str, Times], float]:
    """Seconds an image of each way, and the share of pixels in which make-pseudo and the usual loop differ.

    Args:
        work: images for make-pseudo and the network alone.
        few: images for the usual loop, which is left out if there are none.
        rounds: rounds after the warm-up.
    """
    images = work.scaled()
    batches = [images[index] for index in range(len(images))]
    rivals: dict[str, tuple[int, Callable[[Path], None]]] = {
        WHOLE: (len(work.tagged), lambda out: make_pseudo(work, out)),
        ALONE: (len(work.tagged), lambda out: network_alone(work, batches)),
    }
    if len(few.tagged):
        rivals[LOOP] = (len(few.tagged), lambda out: usual_loop(few, out))
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    differing = 0.0
    with TemporaryDirectory() as folder:
        warm_up(work, few, batches, Path(folder))
        for number in range(rounds):
            outs = {name: Path(folder, f"{name} {number}") for name in rivals}
            for name, (count, rival) in rivals.items():
                seconds[name].append(timed(rival, outs[name], work.device) / count)
            if len(few.tagged):
                differing = max(differing, difference(few.tagged, outs[WHOLE], outs[LOOP]))
    return {name: Times(tuple(taken)) for name, taken in seconds.items()}, differing


def warm_up(work: Work, few: Work, batches: Sequence[ScaledBatch], folder: Path) -> None:
    """Run each way once: the slow one with one image, the others with all, so that a GPU has seen every shape."""
    make_pseudo(work if work.device.type == "cuda" else work.first(1), folder / "warm")
    network_alone(work, batches if work.device.type == "cuda" else batches[:1])
    if len(few.tagged):
        usual_loop(few.first(1), folder / "warm loop")


def timed(function: Callable[[Path], None], out: Path, device: torch.device) -> float:
    """Seconds of a call."""
    gc.collect()
    synchronise(device)
    began = time.perf_counter()
    function(out)
    synchronise(device)
    return time.perf_counter() - began


def difference(tagged: TaggedSet, ours: Path, theirs: Path) -> float:
    """Share of pixels in which two folders of label maps differ.

    Raises:
        SystemExit: it is above TOLERANCE.
    """
    differing = pixels = 0
    for record in tagged.records:
        first_HW, second_HW = (read_mask(out / "labels" / f"{record.name}.png") for out in (ours, theirs))
        differing += int((first_HW != second_HW).sum())
        pixels += first_HW.size
    if differing > TOLERANCE * pixels:
        raise SystemExit(f"{differing / pixels:.2%} of the pixels differ; nothing to compare")
    return differing / pixels


def time_table(times: dict[str, Times]) -> str:
    """Milliseconds an image and ratios."""
    rows = [
        [name, f"{1000 * taken.median:.0f}", ratio_cell(taken, times[ALONE]), ratio_cell(taken, times[WHOLE])]
        for name, taken in times.items()
    ]
    return table(["", "ms an image", f"over {ALONE}", f"over {WHOLE}"], rows)


def profile_table(work: Work) -> str:
    """The most expensive operators of make-pseudo, by their own time in the main thread."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if work.device.type == "cuda" else [])]
    with TemporaryDirectory() as folder:
        make_pseudo(work.first(1), Path(folder, "warm"))
        with profile(activities=activities) as profiler:
            make_pseudo(work, Path(folder, "out"))
    order = "self_device_time_total" if work.device.type == "cuda" else "self_cpu_time_total"
    return str(profiler.key_averages().table(sort_by=order, row_limit=TOP))


def growth_work(root: Path, images: int) -> Work:
    """The first scenes of a folder and a tiny network on the CPU, without worker processes."""
    torch.manual_seed(0)
    network = build_network("deit_tiny_patch16_224", CLASSES, decoder=False, vit=TINY).eval()
    tagged = open_data(root, split="train")
    config = resolve(None, (), {**PUBLISHED, "maps.scales": [SIDE], "run.workers": 0})
    return Work(network, replace(tagged, records=tagged.records[:images]), config, torch.device("cpu"))


def label_scenes(root: str, images: int, *, warm_up: bool) -> None:
    """Run make-pseudo on ``images`` scenes; on one for the warm-up."""
    with TemporaryDirectory() as folder:
        make_pseudo(growth_work(Path(root), 1 if warm_up else images), Path(folder, "out"))


@contextmanager
def many_scenes(count: int) -> Iterator[Path]:
    """A data folder of small scenes."""
    with TemporaryDirectory() as folder:
        write_scenes(
            Path(folder), train=count, val=1, seed=0, settings=SceneSettings(classes=CLASSES, sizes=((SIDE, SIDE),))
        )
        yield Path(folder)


def growth_table(counts: Sequence[int]) -> str:
    """Time and peak memory over the number of images; from the second row on, how they grew since the row before."""
    found: list[tuple[int, float, float]] = []
    with many_scenes(max(counts)) as root:
        label_scenes(str(root), 1, warm_up=True)
        for count in counts:
            found.append((count, scene_seconds(root, count), added_memory(CPU, label_scenes, str(root), count)))
    growths = [("", ""), *(growth(before, now) for before, now in pairwise(found))]
    rows = [
        [str(count), f"{seconds:.2f}", f"{1000 * seconds / count:.1f}", exponent, f"{mebibytes:.0f}", slope]
        for (count, seconds, mebibytes), (exponent, slope) in zip(found, growths, strict=True)
    ]
    header = ["images", "s", "ms an image", "grows as images to the", "MiB added at the peak", "KiB an image more"]
    return table(header, rows)


def growth(before: tuple[int, float, float], now: tuple[int, float, float]) -> tuple[str, str]:
    """Exponent of the time and KiB an image, between two rows of images, seconds and MiB."""
    exponent = math.log(now[1] / before[1]) / math.log(now[0] / before[0])
    return f"{exponent:.2f}", f"{1024 * (now[2] - before[2]) / (now[0] - before[0]):+.1f}"


def scene_seconds(root: Path, count: int) -> float:
    """Seconds of make-pseudo on ``count`` scenes."""
    work = growth_work(root, count)
    with TemporaryDirectory() as folder:
        return timed(lambda out: make_pseudo(work, out), Path(folder, "out"), work.device)


def open_work(data: Path, split: str, run: Path | None, backbone: str, flags: dict[str, Any]) -> Work:
    """All images of a split and the network of a run, or one with random weights."""
    config = resolve(None, (), {**PUBLISHED, **flags})
    device = pick_device(config.run.device)
    if run is not None:
        network, _, _ = load_network(run)
        return Work(network.to(device), open_data(data, split=split, classes=network.classes), config, device)
    tagged = open_data(data, split=split)
    torch.manual_seed(0)
    network = build_network(backbone, tagged.classes, decoder=False).eval()
    return Work(network.to(device), tagged, config, device)


def main(
    data: Annotated[Path | None, typer.Option(help="Data folder.", metavar="DIR")] = None,
    split: str = "val",
    images: Annotated[int, typer.Option(min=0, help="So many, evenly spread; 0 takes all.")] = 24,
    baseline_images: Annotated[int, typer.Option(min=0, help="So many of them for the usual loop; 0: none.")] = 24,
    run: Annotated[Path | None, typer.Option(help="A trained network; random weights unless given.")] = None,
    backbone: Annotated[str, typer.Option(help="A timm vision transformer.")] = "deit_small_patch16_224",
    scales: Annotated[str, typer.Option(help="Sides in pixels.")] = "224",
    flip: bool = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    amp: Annotated[str, typer.Option(help="none, bf16 or fp16; not for the usual loop.")] = "none",
    batch: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 8,
    workers: Annotated[int | None, typer.Option(help="Loader processes.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    profiler: Annotated[bool, typer.Option("--profile", help="Profile make-pseudo; no ratios.")] = False,
    grow: Annotated[bool, typer.Option("--growth", help="Time and memory over the number of images.")] = False,
) -> None:
    """Print one table."""
    if grow:
        print(f"### make-pseudo over scenes of {SIDE} px, a tiny network, one process ({machine(CPU)})\n")
        print(growth_table(COUNTS))
        return
    if data is None:
        raise typer.BadParameter("--data DIR is needed, or --growth")
    flags = {"maps.scales": scales.split(","), "maps.flip": flip}
    flags |= {"run.batch_pixels": batch * max(map(int, scales.split(","))) ** 2}
    flags |= {"run.device": device, "run.amp": amp} | ({} if workers is None else {"run.workers": workers})
    work = open_work(data, split, run, backbone, flags).first(images)
    print(f"### make-pseudo, {run or backbone}, {scales} px, flip {'on' if flip else 'off'}, amp {amp}: "
          f"{len(work.tagged)} images of {split}, batches: {len(work.scaled())} ({machine(work.device)})\n",
          flush=True)  # fmt: skip
    if profiler:
        print(profile_table(work))
        return
    few = work.first(baseline_images) if baseline_images else replace(work, tagged=replace(work.tagged, records=()))
    times, differing = compare(work, few, rounds)
    print(time_table(times))
    print(f"\nTargets: at most {OVER_NETWORK} over the network on a GPU; the loop at least {OVER_LOOP:g} on two cores.")
    if len(few.tagged):
        print(f"The loop labelled {len(few.tagged)} images; its labels differ in {differing:.4%} of the pixels.")


if __name__ == "__main__":
    typer.run(main)
