"""The range of blocks that `wsss analyze` chooses, against the last block alone and all blocks (results/attention.md).

    python benchmarks/layers.py RUN --data DIR --choose train --score val
    python benchmarks/layers.py --scratch OUT --seed 0

The second line first writes 1,500 generated scenes to OUT and trains a network of six blocks on them from scratch.

The choice is made without masks, by deletion, on each of several sets of images of one split that have no image in
common. Seeds are then scored on another split: at the threshold that is best on the images of all sets, whose masks
serve that alone, and at the best threshold (oracle). One scale, no flip, no PAMR.

Shape suffixes: K classes, R present (image, class) pairs, L blocks, h x w patch grid.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from measuring import CPU, few, machine, table
from numpy.typing import NDArray
from rich.progress import track

from wsss.analysis.analyse import count_seeds
from wsss.analysis.layers import alike, best_start, deletions
from wsss.config import resolve
from wsss.data.dataset import open_data
from wsss.data.records import TaggedSet
from wsss.data.scaled import ScaledImages, load_batches
from wsss.data.scenes import SceneSettings, write_scenes
from wsss.data.subsets import evenly
from wsss.data.truth import read_truth
from wsss.evaluation.confusion import ThresholdSweep
from wsss.inference.evaluate import ORACLE_THRESHOLDS
from wsss.maps.generate import frozen
from wsss.maps.recorder import MapSettings, Recorder
from wsss.models.checkpoint import load_network
from wsss.models.network import Network
from wsss.training.start import SILENT, train_classifier

BATCH_PIXELS = 2**18


@dataclass(frozen=True, slots=True)
class Measured:
    """Figures of a set: the deletion (R, L) of each image by its name, and the sweep of the seeds of each range."""

    deletion_RL: dict[str, NDArray[np.float32]]
    sweeps: list[ThresholdSweep]

    def mean_deletion(self, names: list[str]) -> NDArray[np.float64]:
        """Over the pairs of some images, (L,)."""
        mean_L: NDArray[np.float64] = np.concatenate([self.deletion_RL[name] for name in names]).mean(
            axis=0, dtype=np.float64
        )
        return mean_L


def measured(network: Network, tagged: TaggedSet, side: int, settings: MapSettings, *, choose: bool) -> Measured:
    """Maps of every range of all images that have a mask; ``choose`` measures deletions too."""
    depth = network.backbone.depth
    found = Measured({}, [ThresholdSweep(len(tagged.classes) + 1, ORACLE_THRESHOLDS) for _ in range(depth)])
    images = ScaledImages(tagged.records, (side,), network.backbone.stride, BATCH_PIXELS)
    for batch in track(load_batches(images, 0), f"ranges of {tagged.split}", len(images)):
        (images_B3HW,) = batch.at_scales(CPU)
        present_BK = torch.from_numpy(np.stack([tagged.present(record) for record in batch.records]))
        with frozen(network), torch.enable_grad():
            with Recorder(network, replace(settings, start_layer=0)) as recorder:
                features = network.features(images_B3HW)
                logits_BK = network.readout(features)
            ranges = recorder.maps_by_start(features, logits_BK, present_BK)
        fallen_RL = deletions(network, images_B3HW, logits_BK.detach(), ranges) if choose else None
        for i, record in enumerate(batch.records):
            if fallen_RL is not None:
                found.deletion_RL[record.name] = fallen_RL[ranges[0].image_R == i].numpy()
            maps_LRhw = np.stack([maps.of_image(i).numpy() for maps in ranges])
            count_seeds(found.sweeps, maps_LRhw, record.tags, read_truth(tagged, record))
    return found


def rows(chosen: Measured, scored: Measured, sets: list[list[str]], default: int) -> list[list[str]]:
    """One row a way to choose: first block, mIoU at the threshold of the choosing split, oracle mIoU."""
    depth = len(scored.sweeps)
    oracles = [sweep.oracle()[1].mean_iou() for sweep in scored.sweeps]
    picks = [(f"deletion, set {i}", best_start(chosen.mean_deletion(names))) for i, names in enumerate(sets, 1)]
    picks += [("deletion, all sets", best_start(chosen.mean_deletion([*chosen.deletion_RL])))]
    picks += [("last block", depth - 1), ("all blocks", 0), ("upper half (default)", default)]
    picks += [("oracle", int(np.argmax(oracles)))]
    found = []
    for name, start in picks:
        threshold, _ = chosen.sweeps[start].oracle()
        fixed = scored.sweeps[start].at(threshold).mean_iou()
        found.append([name, str(start), f"{100 * fixed:.1f} @{threshold:.2f}", f"{100 * oracles[start]:.1f}"])
    return found


def curve(chosen: Measured, scored: Measured, names: list[str]) -> list[list[str]]:
    """One row a range: deletion on the choosing split and oracle mIoU on the other one."""
    deletion_L = chosen.mean_deletion(names)
    good = alike(deletion_L)
    return [
        [
            str(start),
            f"{deletion_L[start]:.2f}{' *' if start in good else ''}",
            f"{100 * sweep.oracle()[1].mean_iou():.1f}",
        ]
        for start, sweep in enumerate(scored.sweeps)
    ]


def from_scratch(out: Path, seed: int, depth: int) -> tuple[Path, Path]:
    """Write scenes and train a network of some blocks on them; a run that is there is taken. Returns run and scenes."""
    run, scenes = out / f"cls-{depth}-{seed}", out / "scenes"
    if not scenes.exists():
        write_scenes(scenes, train=1500, val=200, seed=0, settings=SceneSettings())
    if not run.exists():
        words = [f"model.vit.depth={depth}"]
        train_classifier(resolve("demo", words, {"data.root": scenes, "run.seed": seed}), run, SILENT)
    return run, scenes


def main(
    run: Annotated[Path | None, typer.Argument()] = None,
    data: Annotated[Path | None, typer.Option()] = None,
    choose: Annotated[str, typer.Option(help="Split on which is chosen.")] = "train",
    score: Annotated[str, typer.Option(help="Split whose seeds are scored.")] = "val",
    sets: Annotated[int, typer.Option(min=1, help="Sets on which is chosen.")] = 3,
    size: Annotated[int, typer.Option(min=1, help="Images of a set.")] = 32,
    limit: Annotated[int, typer.Option(help="Images that are scored, evenly spread; 0 scores all.")] = 0,
    scratch: Annotated[Path | None, typer.Option(help="Train from scratch on scenes there first.")] = None,
    seed: int = 0,
    depth: Annotated[int, typer.Option(min=2, help="Blocks of the network from scratch.")] = 6,
    method: str = "attention-gradient",
    gamma: float = 0.5,
    spread: int = 1,
) -> None:
    """Print two tables."""
    if scratch is not None:
        run, data = from_scratch(scratch, seed, depth)
    if run is None or data is None:
        raise typer.BadParameter("RUN with --data DIR, or --scratch OUT")
    network, trained, path = load_network(run)
    network.eval()
    settings = MapSettings(method=method, gamma=gamma, spread=spread)  # type: ignore[arg-type]
    began, side = time.monotonic(), trained.augment.size
    tagged, other = (open_data(data, split=split, classes=network.classes) for split in (choose, score))
    tagged, other = replace(tagged, records=evenly(tagged.columns, sets * size)), few(other, limit)
    names = [record.name for record in tagged.records]
    chosen = measured(network, tagged, side, settings, choose=True)
    scored = measured(network, other, side, settings, choose=False)
    print(
        f"\n### {path}: {network.backbone.name}, {network.backbone.depth} blocks, {method}, gamma {gamma:g},"
        f" spread {spread}, {side} px; chosen on {sets} sets of {size} images of {choose}, scored on {len(other)} of"
        f" {score}, {time.monotonic() - began:.0f} s ({machine(CPU)})\n"
    )
    ways = rows(chosen, scored, [names[i::sets] for i in range(sets)], network.backbone.depth // 2)
    print(table(["chosen by", "first block", f"mIoU %, threshold of {choose}", "mIoU %, oracle"], ways))
    print()
    print(table(["from block", "deletion (* within 5%)", "mIoU %, oracle"], curve(chosen, scored, names)))


if __name__ == "__main__":
    typer.run(main)
