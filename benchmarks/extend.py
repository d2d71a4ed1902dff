"""What a classifier forgets that learns new classes: the table "New classes" of results/attention.md.

    python benchmarks/extend.py OUT --data DIR --weights FILE

One base run learns cat, dog, horse and person from images without cows and sheep. Then it meets images of cow and
sheep, tagged with these two alone, whatever else they show. Each variant goes on from the base for the same number of
steps: plain fine-tuning, where an old class is absent since nobody tagged it; the teacher's answers with and without
distilled attention (``--extend --memory 0``); the same with memories of equal bytes and images of three sides; and
joint training on the images of both with all their tags. Tag mAP and mIoU of class maps are of the old and of the new
classes of ``val``, with their harmonic mean. Maps are made with the tags of ``val`` at one scale, mirrored too, and
thresholded at the value that is best for the base on ``train``, whose masks serve that alone. Seeds draw new rows of
the head, order, crops and memories; the base is the same. Finished rows in OUT/rows.jsonl are kept, so a stopped run
can be continued.

Shape suffixes: B, N images, K classes, R present classes of an image, h x w patches, H x W pixels.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from measuring import CPU, few, machine, table
from numpy.typing import NDArray
from seeds import THRESHOLDS
from torch.nn import functional as F

from wsss.config import Config, resolve
from wsss.data.dataset import open_data
from wsss.data.memory import MEMORY, Limits, bytes_of, open_memory, with_classes
from wsss.data.records import TaggedSet
from wsss.data.scaled import ScaledImages, load_batches
from wsss.evaluation.confusion import ThresholdSweep
from wsss.evaluation.tagging import average_precision
from wsss.files import write_whole
from wsss.maps.generate import multiscale_scores
from wsss.maps.recorder import MapSettings
from wsss.models.checkpoint import build_from
from wsss.models.network import Network
from wsss.training.extend import Extended
from wsss.training.loop import RunContext
from wsss.training.start import SILENT, classify_loop, resume_classifier, train_classifier

OLD, NEW = ("cat", "dog", "horse", "person"), ("cow", "sheep")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Variant:
    """A training that goes on from the base.

    Attributes:
        distil: value of ``classify.distil``; None trains without a teacher.
        side: of the images in the memory; None keeps none.
        joint: with the images of the base, all tags known.
    """

    distil: str | None = None
    side: int | None = None
    joint: bool = False


def variants(sides: Sequence[int]) -> dict[str, Variant]:
    """All trainings, by their name in the table."""
    teachers = {
        "teacher, no distillation": "none",
        "teacher, symmetric": "symmetric",
        "teacher, asymmetric": "asymmetric",
    }
    return {
        "plain fine-tuning": Variant(),
        **{name: Variant(distil) for name, distil in teachers.items()},
        **{f"asymmetric, memory of {side} px": Variant("asymmetric", side) for side in sides},
        "joint": Variant(joint=True),
    }


def folder_of(data: Path, into: Path, split: str, classes: Sequence[str], absent: Sequence[str], images: int) -> Path:
    """A data folder with the first images, in a random order, of some classes and without others; links to the files.

    Its tags name these classes alone.
    """
    if not (into / "tags.csv").is_file():
        found = open_data(data, split=split)
        wanted, not_wanted = ({found.classes.index(name) for name in names} for names in (classes, absent))
        lines: list[str] = []
        (into / "images").mkdir(parents=True, exist_ok=True)
        for i in np.random.default_rng(0).permutation(len(found)).tolist():
            record = found.records[i]
            tags = set(record.tags)
            if tags & wanted and not tags & not_wanted and len(lines) < images:
                link = into / "images" / record.image.name
                link.unlink(missing_ok=True)
                link.symlink_to(record.image.absolute())
                lines.append(f"{record.image.name},{';'.join(found.classes[k] for k in sorted(tags & wanted))}\n")
        (into / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
        write_whole(into / "tags.csv", "image,labels\n" + "".join(lines))
    return into


def together(data: Path, first: Path, second: Path, classes: Sequence[str]) -> TaggedSet:
    """The images of two folders with all tags of the data set that they come from, all known."""
    found = open_data(data, split="train_aug")
    tags = {record.name: record.tags for record in found.records}
    place = [classes.index(name) for name in found.classes]
    parts = [open_data(folder) for folder in (first, second)]
    records = [
        replace(record, tags=tuple(sorted(place[k] for k in tags[record.name.rpartition("/")[2]])), unknown=())
        for part in parts
        for record in part.records
    ]
    return replace(parts[0], classes=tuple(classes), records=records, mask_folder=None)


def read_maps(
    network: Network, tagged: TaggedSet, limit: int, side: int
) -> tuple[ThresholdSweep, NDArray[np.float32], NDArray[np.bool_]]:
    """Class maps of images with a mask at every threshold; logits and tags (N, K) in the order of the network."""
    names = network.classes
    index_K = torch.tensor([tagged.classes.index(name) + 1 for name in names])
    with_truth = [record for record in tagged.records if tagged.has_truth(record)]
    records = few(replace(tagged, records=with_truth), limit).records
    found = ThresholdSweep(len(tagged.classes) + 1, THRESHOLDS)
    logits, tags = [], []
    for batch in load_batches(ScaledImages(records, (side,), network.backbone.stride, 2**19), 0):
        present_BK = torch.from_numpy(np.stack([tagged.present(record) for record in batch.records]))[:, index_K - 1]
        logits_BK, maps = multiscale_scores(network, batch.at_scales(CPU), present_BK, MapSettings(), flip=True)
        logits.append(logits_BK.numpy())
        tags.append(present_BK.numpy())
        for scores_Khw, present_K, record in zip(maps.dense(), present_BK, batch.records, strict=True):
            truth_HW = tagged.truth(record)
            assert truth_HW is not None
            own = present_K.nonzero()[:, 0]
            if not len(own):
                continue
            best_HW, rank_HW = F.interpolate(scores_Khw[None, own], size=truth_HW.shape, mode="bilinear")[0].max(dim=0)
            found.update(best_HW, index_K[own][rank_HW], truth_HW)
    return found, np.concatenate(logits), np.concatenate(tags)


def figures_of(network: Network, data: Path, threshold: float, limit: int, side: int) -> Row:
    """Tag mAP and map mIoU, in [0, 1], of the old and of the new classes, as far as the network knows them."""
    val = open_data(data, split="val")
    found, logits_NK, tags_NK = read_maps(network.eval(), val, limit, side)
    precision = dict(zip(network.classes, average_precision(logits_NK, tags_NK), strict=True))
    iou = dict(zip(val.classes, found.at(threshold).per_class_iou()[1:], strict=True))
    row: Row = {"images_scored": len(tags_NK)}
    for age, names in (("old", OLD), ("new", NEW)):
        if names[0] in network.classes:
            for what, values in (("tags", precision), ("maps", iou)):
                row[f"{what}_{age}"] = float(np.nanmean([values[name] for name in names]))
    return row


def directly(run: Path, config: Config, base: Path, train: TaggedSet) -> Network:
    """Fine-tune the base with a grown head on tags alone, without a teacher."""
    grown = Extended.of(base)
    config = grown.classifier_config(config, SILENT.say)
    network = build_from(config, train.classes, decoder=False)
    grown.give(network, ())
    run.mkdir(parents=True, exist_ok=True)
    loop = classify_loop(RunContext(run, config, CPU, SILENT), network, train, None, {"init": str(base)})
    loop.train()
    return loop.shown


def trained(
    run: Path, variant: Variant, config: Config, base: Path, data: Path, folders: Sequence[Path], most: int
) -> Network:
    """The network of a variant."""
    classes = (*OLD, *NEW)
    if variant.joint:
        return directly(run, config, base, together(data, folders[0], folders[1], classes))
    if variant.distil is None:
        return directly(run, config, base, with_classes(open_data(folders[1]), classes))
    if (run / "last.pt").is_file():
        return resume_classifier(run, SILENT)
    limits = None if variant.side is None else Limits(most, variant.side)
    return train_classifier(config, run, SILENT, extend=base, memory=limits)


def rows_in(path: Path) -> Iterator[Row]:
    """The finished rows; a line that was being written when the program was killed is left out."""
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def harmonic(row: Row, what: str) -> float:
    """Harmonic mean of the figures of old and new classes; 0 where one of them is 0."""
    old, new = row[f"{what}_old"], row[f"{what}_new"]
    return 2 * old * new / (old + new) if old + new else 0.0


def cell(values: Sequence[float]) -> str:
    """Mean, and deviation where there are several."""
    mean = 100 * statistics.mean(values)
    return f"{mean:.1f} +- {100 * statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def table_of(rows: Sequence[Row], names: Sequence[str]) -> str:
    """A line for the base and for each variant: mean and deviation over the seeds."""
    lines = []
    for name in ("base", *names):
        mine = [row for row in rows if row["variant"] == name]
        if not mine:
            continue
        cells = []
        for what in ("tags", "maps"):
            if name == "base":
                cells += [cell([row[f"{what}_old"] for row in mine]), "-", "-"]
            else:
                cells += [cell([row[f"{what}_{age}"] for row in mine]) for age in ("old", "new")]
                cells.append(cell([harmonic(row, what) for row in mine]))
        kept = statistics.mean(row.get("memory", 0) for row in mine)
        lines.append([name, str(len(mine)), *cells, f"{kept:.0f}" if kept else "-"])
    header = [
        "variant",
        "seeds",
        *(f"{what} {age}" for what in ("tag mAP", "map mIoU") for age in ("old", "new", "harmonic")),
    ]
    return table([*header, "images kept"], lines)


def main(
    out: Path,
    data: Annotated[Path, typer.Option(help="VOC animals.")],
    weights: Annotated[str, typer.Option(help="Of DeiT-Tiny.")] = "pretrained",
    seeds: str = "0,1,2",
    side: Annotated[int, typer.Option(help="Side of crops and maps, pixels.")] = 96,
    base_images: int = 320,
    base_epochs: int = 4,
    new_images: int = 96,
    steps: Annotated[int, typer.Option(help="Of each variant.")] = 24,
    lr: float = 2e-4,
    memory: Annotated[int, typer.Option(help="Bytes of a memory.")] = 150_000,
    sides: Annotated[str, typer.Option(help="Of the images in memories, pixels.")] = "224,112,56",
    limit: Annotated[int, typer.Option(help="Images of train and of val, at most, that are scored.")] = 74,
) -> None:
    """Append a row of JSON a training to OUT/rows.jsonl, and print the table of all rows."""
    print(f"{machine(CPU)}, {vars_of(locals())}", flush=True)
    rows = out / "rows.jsonl"
    base = out / "base"
    flags: Row = {"run.workers": 0, "run.device": "cpu", "augment.size": side, "classify.finetune": "all"}
    flags |= {"classify.validate_every": 1000, "classify.lr": lr, "model.backbone": "deit_tiny_patch16_224"}
    first = folder_of(data, out / "data-old", "train_aug", OLD, NEW, base_images)
    second = folder_of(data, out / "data-new", "train_aug", NEW, (), new_images)
    if (base / "last.pt").is_file():
        network = resume_classifier(base, SILENT)
    else:
        given = flags | {"data.root": first, "model.weights": weights, "classify.epochs": base_epochs}
        network = train_classifier(resolve(None, (), given), base, SILENT)
    if not any(row["variant"] == "base" for row in rows_in(rows)):
        found, _, _ = read_maps(network.eval(), open_data(data, split="train"), limit, side)
        threshold, _ = found.oracle()
        figures = figures_of(network, data, threshold, limit, side)
        append(rows, {"variant": "base", "seed": 0, "threshold": threshold, **figures})
    threshold = next(row["threshold"] for row in rows_in(rows) if row["variant"] == "base")
    wanted = variants([int(text) for text in sides.split(",")])
    for seed in (int(text) for text in seeds.split(",")):
        for name, variant in wanted.items():
            if any((row["variant"], row["seed"]) == (name, seed) for row in rows_in(rows)):
                continue
            run = out / "runs" / f"{seed}-{name.replace(' ', '-').replace(',', '')}"
            images = base_images + new_images if variant.joint else new_images * (1 if variant.side is None else 2)
            epochs = max(1, round(steps / (images // 16)))
            own = {"run.seed": seed, "data.root": second, "classify.epochs": epochs}
            config = resolve(None, (), flags | own | {"classify.distil": variant.distil or "none"})
            began = time.process_time()
            grown = trained(run, variant, config, base, data, (first, second), memory)
            row = {"variant": name, "seed": seed, "steps": epochs * (images // 16)}
            if variant.side is not None:
                kept = open_memory(run / MEMORY, grown.classes)
                row |= {"memory": len(kept), "memory_bytes": bytes_of(run / MEMORY)}
            row |= {"seconds": time.process_time() - began}
            append(rows, row | figures_of(grown, data, threshold, limit, side))
    print(table_of([*rows_in(rows)], list(wanted)))


def vars_of(values: Row) -> str:
    """The settings of a run."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if not isinstance(value, Path))


def append(path: Path, row: Row) -> None:
    """Add a line of JSON to a file, and print it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    typer.run(main)
