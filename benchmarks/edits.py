"""What learned edits of attention give: the table "Learned edits" of results/attention.md.

    python benchmarks/edits.py OUT --data DIR --init RUN --labels LABELS --masks MASKS

Each variant goes on from RUN for one epoch (``--epochs``) with the same images, order and crops: plain, each edit, its
control, and the two losses. Tag mAP is of ``val``. Class maps of ``val`` are made with its tags at one scale and
thresholded at the value that is best on ``train``, whose masks serve that alone; retention is the mIoU of the same maps
of images with Gaussian noise, at the same threshold, divided by that. Two variants read the label maps of
``--labels``, one the true masks of ``--masks``, which is an oracle; they are left out where the folder is. Guides
serve the training alone. Finished rows in OUT are kept and unfinished trainings are resumed, seed by seed, so a
stopped run can be continued and its table printed at any time.

Shape suffixes: B images, K classes, R present classes of an image, h x w patches, H x W pixels.
"""

from __future__ import annotations

import json
import statistics
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from few_images import subset
from measuring import CPU, few, machine, table
from seeds import THRESHOLDS
from torch import Tensor
from torch.nn import functional as F

from wsss.config import resolve
from wsss.data.dataset import open_data
from wsss.data.records import TaggedSet
from wsss.data.scaled import ScaledImages, load_batches
from wsss.evaluation.confusion import ThresholdSweep
from wsss.evaluation.tagging import tag_map
from wsss.inference.score import tag_scores
from wsss.maps.generate import multiscale_scores
from wsss.maps.recorder import MapSettings
from wsss.models.network import Network
from wsss.training.start import SILENT, resume_classifier, train_classifier

SIGMA = 0.26
"""Standard deviation of the noise, of images in [0, 1]: severity 4 of five of Hendrycks and Dietterich (2019)."""
Row = dict[str, Any]
Change = Callable[[Tensor, str], Tensor]


@dataclass(frozen=True, slots=True)
class Variant:
    """A training.

    Attributes:
        edits: value of ``model.attention``.
        settings: config keys.
        guide: the label maps that it learns with.
    """

    edits: tuple[Row, ...] = ()
    settings: tuple[tuple[str, float], ...] = ()
    guide: Literal["labels", "masks"] | None = None


def edit(name: str, guide: Literal["labels", "masks"] | None = None, **more: object) -> Variant:
    """A training with one edit, of all blocks."""
    return Variant(edits=({"name": name, **more, **({} if guide is None else {"guide": "labels"})},), guide=guide)


VARIANTS: dict[str, Variant] = {
    "plain": Variant(),
    "temperature": edit("temperature"),
    "channel-gate": edit("channel-gate"),
    "channel-gate, control: one gate": edit("channel-gate", control=True),
    "evolving": edit("evolving"),
    "evolving, control: no convolution": edit("evolving", control=True),
    "sparse": edit("sparse"),
    "sparse, control: no threshold": edit("sparse", control=True),
    "object-aware by colour": edit("object-aware"),
    "object-aware by colour, control: of another image": edit("object-aware", control=True),
    "object-aware by label maps": edit("object-aware", "labels"),
    "object-aware by label maps, control: of another image": edit("object-aware", "labels", control=True),
    "object-aware by true masks (oracle)": edit("object-aware", "masks"),
    "attention gain": Variant(settings=(("classify.weight_gain", 1.0),)),
    "adversarial": Variant(settings=(("classify.adversarial", 2.0),)),
}


def noisy(image_3HW: Tensor, name: str) -> Tensor:
    """An image with noise that follows from its name alone."""
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    return (image_3HW + SIGMA * torch.randn(image_3HW.shape, generator=random)).clamp(0, 1)


def as_it_is(image_3HW: Tensor, name: str) -> Tensor:
    """The image."""
    return image_3HW


def sweep_of(
    network: Network,
    tagged: TaggedSet,
    limit: int,
    side: int,
    change: Change,
    settings: MapSettings = MapSettings(),  # noqa: B008 (frozen)
) -> ThresholdSweep:
    """Class maps at one scale, of changed images, at every threshold."""
    found = ThresholdSweep(len(tagged.classes) + 1, THRESHOLDS)
    with_truth = [record for record in tagged.records if tagged.has_truth(record)]
    records = with_truth[:: max(1, -(-len(with_truth) // limit))]
    for batch in load_batches(ScaledImages(records, (side,), network.backbone.stride, 2**20), 0):
        (images_B3HW,) = batch.at_scales(CPU)
        names = [record.name for record in batch.records]
        changed_B3HW = torch.stack([change(*pair) for pair in zip(images_B3HW, names, strict=True)])
        present_BK = torch.from_numpy(np.stack([tagged.present(record) for record in batch.records]))
        _, maps = multiscale_scores(network, [changed_B3HW], present_BK, settings)
        for scores_Khw, record in zip(maps.dense(), batch.records, strict=True):
            truth_HW, tags = tagged.truth(record), list(record.tags)
            assert truth_HW is not None
            scores_RHW = F.interpolate(scores_Khw[None, tags], size=truth_HW.shape, mode="bilinear")[0]
            best_HW, rank_HW = scores_RHW.max(dim=0)
            found.update(best_HW, (torch.tensor(tags) + 1)[rank_HW], truth_HW)
    return found


def figures_of(network: Network, data: Path, limit: int, side: int, tagged_images: int) -> Row:
    """Tag mAP, map mIoU and retention of a network."""
    config = resolve(None, (), {"run.device": "cpu", "run.workers": 0, "augment.size": side})
    val = open_data(data, split="val", classes=network.classes)
    train = open_data(data, split="train", classes=network.classes)
    network.eval()
    scores_NK, present_NK, known_NK = tag_scores(network, few(val, tagged_images), config, CPU)
    threshold, _ = sweep_of(network, train, limit, side, as_it_is).oracle()
    clean, noised = (sweep_of(network, val, limit, side, change).at(threshold) for change in (as_it_is, noisy))
    return {
        "tag_map": tag_map(scores_NK, present_NK, known_NK),
        "maps": clean.mean_iou(),
        "retention": noised.mean_iou() / clean.mean_iou(),
        "threshold": threshold,
    }


def trained(
    run: Path, variant: Variant, init: Path, guide: Path | None, flags: Row, settings: Sequence[str]
) -> Network:
    """A finished training, new or resumed."""
    if (run / "last.pt").is_file():
        return resume_classifier(run, SILENT)
    config = resolve(None, settings, {**flags, **dict(variant.settings), "model.attention": list(variant.edits)})
    return train_classifier(config, run, SILENT, init=init, guide=guide)


def mean_and_spread(values: Sequence[float], scale: float) -> str:
    """``mean +- standard deviation``, or one value alone."""
    mean = scale * statistics.mean(values)
    return f"{mean:.1f} +- {scale * statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def table_of(rows: Sequence[Row]) -> str:
    """A line for each variant: mean and deviation over the seeds, and the difference of maps to plain, seed by seed."""
    plain = {row["seed"]: row["maps"] for row in rows if row["variant"] == "plain"}
    lines = []
    for name in VARIANTS:
        mine = [row for row in rows if row["variant"] == name]
        gains = [row["maps"] - plain[row["seed"]] for row in mine if row["seed"] in plain and name != "plain"]
        if mine:
            cells = [mean_and_spread([row[key] for row in mine], 100) for key in ("tag_map", "maps", "retention")]
            gain = mean_and_spread(gains, 100) if gains else ""
            seconds = f"{statistics.median(row['seconds'] for row in mine):.0f}"
            lines.append([name, str(len(mine)), *cells, gain, seconds])
    return table(["variant", "seeds", "tag mAP", "maps mIoU", "retention", "maps - plain", "s"], lines)


def rows_in(folder: Path) -> Iterator[Row]:
    """The finished rows."""
    for path in sorted(folder.glob("*.json")):
        yield json.loads(path.read_text())


def main(
    out: Path,
    data: Annotated[Path, typer.Option()],
    init: Annotated[Path, typer.Option(help="Run of train-cls that every variant goes on from.")],
    labels: Annotated[Path | None, typer.Option(help="Label maps of the training images, by make-pseudo.")] = None,
    masks: Annotated[Path | None, typer.Option(help="True masks of the training images.")] = None,
    variants: Annotated[str, typer.Option(help="Names, or beginnings of them, separated by commas.")] = "",
    seeds: str = "0,1,2",
    epochs: int = 1,
    split: str = "train_aug",
    images: Annotated[int, typer.Option(help="Images of the training split; 0 takes all.")] = 0,
    limit: Annotated[int, typer.Option(help="Images of train and of val, at most, whose maps are scored.")] = 110,
    tagged_images: Annotated[int, typer.Option(help="Images of val, at most, whose tags are scored; 0: all.")] = 0,
    side: Annotated[int, typer.Option(help="Side of crops and maps, pixels.")] = 224,
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of the config, for all.")] = None,
) -> None:
    """Print a row of JSON a training, kept in OUT/rows, and then the table of all rows."""
    print(machine(CPU), flush=True)
    (out / "rows").mkdir(parents=True, exist_ok=True)
    folder = subset(data, out / "data", images, 0, split) if images else data
    guides = {"labels": labels, "masks": masks}
    wanted = [name for name in VARIANTS if any(name.startswith(part) for part in variants.split(","))]
    for seed in (int(text) for text in seeds.split(",")):
        for name in wanted:
            variant, slug = VARIANTS[name], f"{seed}-{name.replace(' ', '-').replace(',', '').replace(':', '')}"
            guide, row = variant.guide and guides[variant.guide], out / "rows" / f"{slug}.json"
            if row.is_file() or (variant.guide and guide is None):
                continue
            flags: Row = {"data.root": folder, "data.train_split": split, "run.seed": seed, "run.workers": 0}
            flags |= {"run.device": "cpu", "augment.size": side, "classify.epochs": epochs, "classify.finetune": "all"}
            flags |= {"classify.validate_every": 1000}
            began = time.monotonic()
            network = trained(out / "runs" / slug, variant, init, guide, flags, settings or [])
            seconds = time.monotonic() - began
            figures = figures_of(network, data, limit, side, tagged_images)
            row.write_text(json.dumps({"variant": name, "seed": seed, **figures, "seconds": seconds}) + "\n")
            print(row.read_text().strip(), flush=True)
    print(table_of([*rows_in(out / "rows")]))


if __name__ == "__main__":
    typer.run(main)
