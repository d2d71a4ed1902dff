"""Tag mAP and class maps of classifiers trained on few images: the table of few images in RESULTS.md.

    python benchmarks/few_images.py OUT --data DIR --weights FILE --sizes 50,100,200,800 --seeds 0,1,2

The training sets are nested: the first N of one random order of ``train_aug`` a seed. Each is trained by each recipe of
``--recipes`` (values of ``classify.finetune``). Tag mAP is of ``val``; the class maps of ``val`` are made with its tags
and thresholded at the value that is best on ``train``, whose masks serve that alone. Finished rows in OUT are kept and
unfinished trainings are resumed, so a stopped run can be continued.

Shape suffixes: H x W pixels.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from measuring import CPU, machine
from seeds import THRESHOLDS, Variant, averaged
from torch.nn import functional as F

from wsss.config import Config, resolve
from wsss.data.dataset import open_data
from wsss.data.records import TaggedSet
from wsss.data.scaled import ScaledImages, load_batches
from wsss.evaluation.confusion import ThresholdSweep
from wsss.evaluation.tagging import tag_map
from wsss.inference.score import tag_scores
from wsss.maps.scores import normalised
from wsss.models.network import Network
from wsss.training.start import SILENT, resume_classifier, train_classifier


def subset(data: Path, into: Path, count: int, seed: int, split: str = "train_aug") -> Path:
    """A data folder with the first images of a random order of a split, and the other folders as links."""
    if not into.exists():
        (into / "ImageSets").mkdir(parents=True)
        for entry in data.iterdir():
            if entry.name != "ImageSets":
                (into / entry.name).symlink_to(entry.absolute())
        for entry in (data / "ImageSets").rglob("*.txt"):
            names = entry.read_text().split()
            if entry.stem == split:
                order = np.random.default_rng(seed).permutation(len(names))[:count]
                names = [names[i] for i in sorted(order)]
            copy = into / entry.relative_to(data)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text("".join(f"{name}\n" for name in names))
    return into


def sweep_of(network: Network, tagged: TaggedSet, limit: int) -> ThresholdSweep:
    """Class maps (attention-gradient, upper half of the blocks, root, spread once, 320 px, flip) at every threshold."""
    wanted = [Variant("attention-gradient", start=network.backbone.depth // 2, spread=1)]
    found = ThresholdSweep(len(tagged.classes) + 1, THRESHOLDS)
    records = [record for record in tagged.records if tagged.has_truth(record)]
    records = records[:: max(1, len(records) // limit)]
    for batch in load_batches(ScaledImages(records, (320,), network.backbone.stride, 2**20), 0):
        present_BK = torch.from_numpy(np.stack([tagged.present(record) for record in batch.records]))
        (scores_BKhw,) = averaged(network, batch.at_scales(CPU), present_BK, wanted)
        for scores_Khw, record in zip(scores_BKhw, batch.records, strict=True):
            truth_HW, tags = tagged.truth(record), list(record.tags)
            assert truth_HW is not None
            maps_1KHW = F.interpolate(scores_Khw[None, tags], size=truth_HW.shape, mode="bilinear")
            best_HW, rank_HW = normalised(maps_1KHW[0]).max(dim=0)
            found.update(best_HW, (torch.tensor(tags) + 1)[rank_HW], truth_HW)
    return found


def measure(run: Path, config: Config, data: Path, limit: int) -> dict[str, float]:
    """Train or resume, and score."""
    began = time.monotonic()
    network = resume_classifier(run, SILENT) if (run / "last.pt").is_file() else train_classifier(config, run)
    seconds = time.monotonic() - began
    val = open_data(data, split="val", classes=network.classes)
    train = open_data(data, split="train", classes=network.classes)
    network.eval()
    scores_NK, present_NK, known_NK = tag_scores(network, val, config, CPU)
    threshold, _ = sweep_of(network, train, limit).oracle()
    matrix = sweep_of(network, val, limit).at(threshold)
    return {
        "tag_map": tag_map(scores_NK, present_NK, known_NK),
        "seeds": matrix.mean_iou(),
        "threshold": threshold,
        "seconds": seconds,
    }


def main(
    out: Path,
    data: Annotated[Path, typer.Option()],
    weights: Annotated[Path, typer.Option()],
    sizes: str = "50,100,200,800,3131",
    seeds: str = "0,1,2",
    recipes: str = "all,head,top",
    limit: Annotated[int, typer.Option(help="Images of train and of val, at most about, whose maps are scored.")] = 110,
) -> None:
    """Print one row of JSON a training, and keep it in OUT/rows."""
    print(machine(CPU), flush=True)
    (out / "rows").mkdir(parents=True, exist_ok=True)
    for size in (int(text) for text in sizes.split(",")):
        for seed in (int(text) for text in seeds.split(",")):
            folder = subset(data, out / "data" / f"{size}-{seed}", size, seed)
            for recipe in recipes.split(","):
                name = f"{size}-{seed}-{recipe}"
                row = out / "rows" / f"{name}.json"
                if not row.is_file():
                    flags = {"data.root": folder, "model.weights": str(weights), "run.seed": seed, "run.workers": 0}
                    # 200 steps at least, as the remark of train-cls advises
                    epochs = max(4, -(-200 // max(1, size // 16)))
                    flags |= {"classify.finetune": recipe, "classify.epochs": epochs, "classify.validate_every": 1000}
                    config = resolve("voc-animals-cpu", flags=flags)
                    figures = measure(out / "runs" / name, config, folder, limit)
                    row.write_text(json.dumps({"size": size, "seed": seed, "recipe": recipe, **figures}) + "\n")
                print(row.read_text().strip(), flush=True)


if __name__ == "__main__":
    typer.run(main)
