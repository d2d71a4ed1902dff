"""What a learnt refiner gives over PAMR: the table "Refiner" of results/attention.md.

    python benchmarks/refiner.py OUT --data DIR --run CLS --labels LABELS --masks SEG

A refiner is learnt as `wsss fit-refiner` does, from class maps of CLS on the split ``train`` towards LABELS, once for
each seed, which divides the images; and once more for each towards true masks, an oracle. Class maps of ``val`` with
its tags are refined by each and thresholded at the value that is best on ``train``, whose masks serve that alone, and
the oracle. With ``--masks``, a run of train-seg, masks of ``val`` are predicted and refined by each. Finished rows in
OUT are kept, so a stopped run can be continued and its table printed at any time.

Shape suffixes: B images, C label channels, R present classes of an image, h x w a grid, H x W pixels.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from measuring import CPU, few, machine, table
from torch import Tensor

from wsss.config import Config, LabelsSection
from wsss.data.dataset import open_data
from wsss.data.records import TaggedSet
from wsss.data.scaled import ScaledImages, load_batches
from wsss.data.truth import read_truth
from wsss.evaluation.confusion import ConfusionMatrix, ThresholdSweep
from wsss.inference.evaluate import ORACLE_THRESHOLDS
from wsss.inference.labeller import Labeller
from wsss.inference.refiner_file import FittedRefiner, read_refiner, write_refiner
from wsss.inference.segmenter import Segmenter
from wsss.inference.settings import resolve_for
from wsss.labels.completion import strongest
from wsss.labels.recipe import follow_edges, resized, working_size
from wsss.labels.refiner import Refiner
from wsss.maps.present import PresentMaps
from wsss.maps.scores import normalise_scores
from wsss.models.checkpoint import load_network
from wsss.reporting import Silent
from wsss.stopping import stop_requests
from wsss.training.given_labels import find_labels
from wsss.training.refiner import Fit, examples_of, learn, small_label

Row = dict[str, Any]
KINDS = {"labels": "learnt from label maps", "oracle": "learnt from true masks (oracle)"}


@dataclass(frozen=True, slots=True)
class Sight:
    """What is known of an image before it is refined: of ``reading`` its class maps or its log-probabilities."""

    image_HW3: Tensor
    truth_HW: np.ndarray[Any, np.dtype[np.uint8]]
    maps: PresentMaps | None = None
    grid_Chw: Tensor | None = None


def class_maps(labeller: Labeller, tagged: TaggedSet) -> list[Sight]:
    """The class maps of all images."""
    found = []
    for batch in load_batches(ScaledImages(tagged.records, labeller.scales, (16, 16), 2**20, images=True), 0):
        present_BK = torch.from_numpy(np.stack([tagged.present(record) for record in batch.records]))
        scores = labeller.read(batch.at_scales(CPU), present_BK).scores
        for i, record in enumerate(batch.records):
            found.append(Sight(batch.images[i], read_truth(tagged, record), maps=scores.select([i])))
    return found


def grids(segmenter: Segmenter, tagged: TaggedSet) -> list[Sight]:
    """The log-probabilities of all images."""
    found = []
    for batch in load_batches(ScaledImages(tagged.records, segmenter.scales, (16, 16), 2**20, images=True), 0):
        with torch.no_grad():
            grid_BChw = segmenter.log_probabilities(batch.at_scales(CPU))
        for i, record in enumerate(batch.records):
            found.append(Sight(batch.images[i], read_truth(tagged, record), grid_Chw=grid_BChw[i]))
    return found


@torch.no_grad()
def sweep_of(sights: Sequence[Sight], classes: int, section: LabelsSection, refiner: Refiner | None) -> ThresholdSweep:
    """Refined class maps at every threshold, without the opening; PAMR where there is no refiner."""
    sweep = ThresholdSweep(classes + 1, ORACLE_THRESHOLDS)
    for one in sights:
        size = (one.truth_HW.shape[0], one.truth_HW.shape[1])
        image_13hw = resized(one.image_HW3.permute(2, 0, 1)[None].float() / 255, working_size(*size))
        assert one.maps is not None
        maps = one.maps.at_size((image_13hw.shape[2], image_13hw.shape[3]))
        maps = normalise_scores(follow_edges(image_13hw, maps, section, refiner)).at_size(size)
        best_1HW, class_1HW = strongest(maps)
        sweep.update(best_1HW[0].clamp(0, 1), class_1HW[0].clamp_min(1), one.truth_HW)
    return sweep


def masks_iou(segmenter: Segmenter, sights: Sequence[Sight]) -> float:
    """The mIoU of masks, refined as the segmenter does."""
    matrix = ConfusionMatrix(len(segmenter.classes) + 1)
    for one in sights:
        assert one.grid_Chw is not None
        label_HW = segmenter.label(one.grid_Chw, (one.truth_HW.shape[0], one.truth_HW.shape[1]))
        matrix.update(segmenter.refined(label_HW, one.grid_Chw, one.image_HW3.numpy()), one.truth_HW)
    return matrix.mean_iou()


def fits(
    out: Path, labeller: Labeller, train: TaggedSet, labels: Path, config: Config, seeds: Sequence[int]
) -> Iterator[tuple[str, int, FittedRefiner, Fit | None]]:
    """The refiners of each kind and seed: read, or learnt now."""
    files = {(kind, seed): out / f"{kind}-{seed}.safetensors" for seed in seeds for kind in KINDS}
    examples = {}
    if not all(path.is_file() for path in files.values()):
        folder = find_labels(labels, train)
        with stop_requests() as stop:
            examples["labels"] = examples_of(labeller.network, train, folder, config, Silent(), CPU, stop)
        examples["oracle"] = []
        for one, record in zip(examples["labels"], train.records, strict=True):
            truth_HW, indices = torch.from_numpy(read_truth(train, record)), [0, *(tag + 1 for tag in record.tags)]
            size = (one.label_hw.shape[0], one.label_hw.shape[1])
            examples["oracle"].append(replace(one, label_hw=small_label(truth_HW, indices, size)))
    for (kind, seed), path in files.items():
        fit = None
        if not path.is_file():
            with stop_requests() as stop:
                fit = learn(examples[kind], len(train.classes), seed, Silent(), stop)
            write_refiner(path, fit.refiner, {"supervision": [KINDS[kind]], "seed": seed, **fit.to_json()})
        yield kind, seed, read_refiner(path), fit


def table_of(rows: Sequence[Row]) -> str:
    """A line for PAMR and each kind: mean and deviation over the seeds."""
    lines = []
    for name in ("none", "PAMR", *KINDS):
        mine = [row for row in rows if row["kind"] == name]
        if mine:
            cells = [mean_and_spread([row[key] for row in mine]) for key in ("agreement", "maps", "masks")]
            kept = ", ".join(str(row["best_pass"]) for row in mine if row["best_pass"] is not None)
            lines.append([KINDS.get(name, name), str(len(mine)), *cells, kept or "-"])
    return table(["refined by", "fits", "held-out agreement", "maps mIoU", "masks mIoU", "pass kept"], lines)


def mean_and_spread(values: Sequence[float | None]) -> str:
    """``mean +- standard deviation`` in percent, one value alone, or "-"."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.mean(known):.1f}" + (f" +- {statistics.stdev(known):.1f}" if len(known) > 1 else "")


def main(
    out: Path,
    data: Annotated[Path, typer.Option()],
    run: Annotated[Path, typer.Option(help="Run whose class maps are refined.")],
    labels: Annotated[Path, typer.Option(help="Label maps of the images of train, by make-pseudo.")],
    masks: Annotated[Path | None, typer.Option(help="Run of train-seg whose masks are refined.")] = None,
    fit_data: Annotated[Path | None, typer.Option(help="Data folder whose train is learnt from; else DIR.")] = None,
    seeds: str = "0,1,2",
    limit: Annotated[int, typer.Option(help="Images of train and of val, at most, that are scored; 0: all.")] = 0,
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE of the config.")] = None,
) -> None:
    """Print a row of JSON a refiner, kept in OUT, and then the table of all rows."""
    out.mkdir(parents=True, exist_ok=True)
    network, trained, _ = load_network(run)
    flags: Row = {"run.device": "cpu", "run.workers": 0, "predict.crf": False}
    config = resolve_for(trained, None, settings or [], flags)
    section = config.labels.model_copy(update={"decoder": False, "crf": False})
    labeller = Labeller(network, config.model_copy(update={"labels": section}), CPU)
    learnt = open_data(fit_data or data, split="train", classes=network.classes)
    train, val = (few(open_data(data, split=name, classes=network.classes), limit) for name in ("train", "val"))
    print(f"{machine(CPU)}; learnt from {len(learnt)} images; scored: train {len(train)}, val {len(val)}", flush=True)
    count, maps = len(network.classes), {name: class_maps(labeller, one) for name, one in
                                         (("train", train), ("val", val))}  # fmt: skip
    segmenters = None
    if masks is not None:
        seg, seg_trained, _ = load_network(masks)
        seg_config = resolve_for(seg_trained, None, settings or [], flags)
        bare = Segmenter(seg, seg_config, CPU)
        segmenters = (seg, seg_config, grids(bare, val))

    def row_of(name: str, refiner: FittedRefiner | None, about: Row, *, refine: bool = True) -> None:
        path = out / f"{name}.json"
        if not path.is_file():
            plain = section if refine else section.model_copy(update={"pamr_iterations": 0})
            chosen = None if refiner is None else refiner.refiner
            threshold, _ = sweep_of(maps["train"], count, plain, chosen).oracle()
            row = {**about, "maps": sweep_of(maps["val"], count, plain, chosen).at(threshold).mean_iou()}
            if segmenters is not None:
                row["masks"] = masks_iou(Segmenter(segmenters[0], segmenters[1], CPU, fitted=refiner), segmenters[2])
            path.write_text(json.dumps({"masks": None, **row, "threshold": threshold}) + "\n")
        print(path.read_text().strip(), flush=True)

    unknown: Row = {"seed": None, "agreement": None, "best_pass": None}
    row_of("none", None, {"kind": "none", **unknown}, refine=False)
    write_refiner(out / "pamr.safetensors", Refiner(), {"supervision": []})
    agreement_of_pamr = []
    for kind, seed, fitted, _ in fits(out, labeller, learnt, labels, config, [int(text) for text in seeds.split(",")]):
        about = {"kind": kind, "seed": seed, "agreement": fitted.about["agreement"]}
        row_of(f"{kind}-{seed}", fitted, {**about, "best_pass": fitted.about["best_pass"]})
        if kind == "labels":
            agreement_of_pamr.append(fitted.about["agreement_pamr"])
    mean = statistics.mean(agreement_of_pamr)
    row_of("pamr", read_refiner(out / "pamr.safetensors"), {"kind": "PAMR", **unknown, "agreement": mean})
    print(table_of([json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]))


if __name__ == "__main__":
    typer.run(main)
