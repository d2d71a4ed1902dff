"""Learn a refiner: PAMR unrolled, from class maps towards label maps of the same images.

The class maps of all images are made once. They, the images and the label maps are kept at one ``STRIDE``-th of each
side, where a step takes milliseconds. Images are divided by the seed: the last fifth decides which pass is kept.

Shape suffixes: R present classes of an image, K classes, h x w a small image, H x W pixels of the original.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.config import Config
from wsss.data.layers import layer_digest, read_layer
from wsss.data.masks import IGNORE_INDEX
from wsss.data.records import Record, TaggedSet, counted
from wsss.data.scaled import ScaledImages, load_batches
from wsss.data.subsets import evenly
from wsss.data.truth import read_truth
from wsss.errors import DataError
from wsss.evaluation.confusion import ThresholdSweep
from wsss.inference.evaluate import ORACLE_THRESHOLDS
from wsss.inference.labeller import Labeller
from wsss.inference.settings import batch_pixels
from wsss.labels.completion import strongest
from wsss.labels.pamr import DILATIONS, negated_differences
from wsss.labels.recipe import resized, strided, working_size
from wsss.labels.refiner import Refiner
from wsss.machine import num_workers
from wsss.maps.present import PresentMaps
from wsss.maps.scores import normalised
from wsss.models.network import Network
from wsss.outputs.provenance import UNKNOWN, Supervision, all_of, data_supervision, labels_supervision
from wsss.reporting import Reporter
from wsss.stopping import StopRequest, stop_requests
from wsss.training.ceiling import TRUE_MASKS, with_masks
from wsss.training.given_labels import check_pixels, find_labels

STRIDE = 4
"""Learnt at one such part of each side."""
PASSES = 5
RATE = 1e-2
"""Of Adam."""
IMAGES_A_STEP = 4
HELD_OUT = 5
"""One of so many images decides when to stop."""
LEAST_IMAGES = 5
SURE = 0.9
"""Share of the pixels under a small one that must agree for it to be learnt."""
SHARPNESS = 10.0
"""A difference of scores of 1 / SHARPNESS changes the odds of a class by a factor e, at the start of the learning."""
AGAIN = "run the same command again; it begins anew"


@dataclass(frozen=True, slots=True)
class Example:
    """One image to learn from, small.

    Attributes:
        image_3hw: uint8.
        scores: its class maps, on the patch grid, on the CPU.
        label_hw: uint8 class indices; IGNORE_INDEX where it is not sure.
    """

    image_3hw: Tensor
    scores: PresentMaps
    label_hw: Tensor


@dataclass(frozen=True, slots=True)
class Fit:
    """A learnt refiner and how well its maps agree with the held-out label maps.

    Attributes:
        refiner: of the best pass; exactly PAMR where none was better.
        passes: mIoU in [0, 1], at the best threshold, before the first pass (PAMR) and after each.
        thresholds: these thresholds.
        best: the pass that is kept; 0 is PAMR.
        learnt: number of images that it was learnt from.
        held_out: number of the others.
    """

    refiner: Refiner
    passes: tuple[float, ...]
    thresholds: tuple[float, ...]
    best: int
    learnt: int
    held_out: int

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the numbers of the refiner."""
        return {
            "images": self.learnt + self.held_out,
            "held_out": self.held_out,
            "agreement_pamr": self.passes[0],
            "agreement": self.passes[self.best],
            "threshold_pamr": self.thresholds[0],
            "threshold": self.thresholds[self.best],
            "agreement_of_passes": list(self.passes),
            "best_pass": self.best,
        }

    def words(self) -> str:
        """In one line."""
        before, after = 100 * self.passes[0], 100 * self.passes[self.best]
        if self.best == 0:
            return f"no pass agreed better with the held-out label maps than PAMR ({before:.1f}): the file is PAMR"
        return (
            f"held-out images agree with their label maps by {after:.1f} (PAMR {before:.1f}) mIoU, each at its best"
            f" threshold: {self.thresholds[self.best]:.2f} (PAMR {self.thresholds[0]:.2f})"
        )


def fit_refiner(
    network: Network,
    tagged: TaggedSet,
    config: Config,
    reporter: Reporter,
    *,
    device: torch.device,
    labels: Path | None,
    limit: int = 0,
) -> tuple[Fit, dict[str, Any]]:
    """Learn a refiner of the class maps of a network.

    Args:
        network: of ``train-cls`` or ``train-seg``; its class maps alone are used.
        tagged: the images.
        config: run, maps and data sections; ``run.seed`` divides the images and orders them.
        reporter: progress and remarks.
        device: where the class maps are made; the refiner is learnt on the CPU.
        labels: folder of label maps; None: the true masks of the images, which is an oracle.
        limit: images, taken evenly; 0 takes all.

    Returns:
        the fit, and what the file says of its making beside the network's hash.

    Raises:
        DataError: too few images have tags and label maps, or these do not fit.
        Interrupted: a signal arrived; nothing is kept.
    """
    tagged = _with_tags(tagged if labels is not None else with_masks(tagged, reporter), limit)
    folder = None
    if labels is not None:
        folder = find_labels(labels, tagged)
        check_pixels(folder, tagged, reporter)
    with stop_requests() as stop:
        examples = examples_of(network, tagged, folder, config, reporter, device, stop)
        fit = learn(examples, len(tagged.classes), config.run.seed, reporter, stop)
    learnt_from: Supervision = TRUE_MASKS if labels is None else labels_supervision(labels)
    supervision = all_of(
        network.supervision or UNKNOWN,
        data_supervision(config.data, saliency=False, unknown=tagged.has_unknown(), of_objects=tagged.of_objects),
        learnt_from,
    )
    return fit, {
        "supervision": list(supervision),
        "oracle": labels is None,
        "labels_sha256": None if folder is None else layer_digest(folder, tagged),
        "classes": list(tagged.classes),
        "split": tagged.split,
        "seed": config.run.seed,
        "stride": STRIDE,
        "passes": PASSES,
        "rate": RATE,
        "images_a_step": IMAGES_A_STEP,
        "dilations": list(DILATIONS),
        "maps": config.maps.model_dump(mode="json", exclude={"tile"}),
        **fit.to_json(),
    }


def _with_tags(tagged: TaggedSet, limit: int) -> TaggedSet:
    """So many images with a tag, taken evenly.

    Raises:
        DataError: there are fewer than LEAST_IMAGES.
    """
    known = [i for i, record in enumerate(tagged.records) if record.tags]
    chosen = evenly(tagged.columns.take(np.array(known, np.int64)), limit)
    if len(chosen) < LEAST_IMAGES:
        what = f"{tagged.root}: {counted(len(chosen), 'image')} of split '{tagged.split}' with tags to learn from"
        raise DataError(what, f"take a split, or a --limit, of at least {LEAST_IMAGES} images with tags")
    return replace(tagged, records=chosen)


def examples_of(
    network: Network,
    tagged: TaggedSet,
    labels: Path | None,
    config: Config,
    reporter: Reporter,
    device: torch.device,
    stop: StopRequest,
) -> list[Example]:
    """The class maps, the small image and the small label map of each image, in the order of the set.

    Args:
        labels: folder of label maps; None: the true masks.
    """
    section = config.labels.model_copy(update={"decoder": False, "crf": False})
    labeller = Labeller(network, config.model_copy(update={"labels": section}), device)
    pixels = batch_pixels(config.run, device)
    images = ScaledImages(tagged.records, labeller.scales, network.backbone.stride, pixels, images=True)
    found: dict[str, Example] = {}
    reporter.begin("class maps", len(tagged))
    for batch in load_batches(images, num_workers(config.run), device):
        present_BK = torch.from_numpy(np.stack([tagged.present(record) for record in batch.records]))
        scores = labeller.read(batch.at_scales(device), present_BK).scores.to("cpu")
        for i, record in enumerate(batch.records):
            height, width = working_size(*batch.sizes[i])
            size = (max(1, round(height / STRIDE)), max(1, round(width / STRIDE)))
            image_3hw = resized(batch.images[i].permute(2, 0, 1)[None].float(), size)[0]
            label_HW = _label(tagged, record, labels, batch.sizes[i])
            label_hw = small_label(label_HW, [0, *(tag + 1 for tag in record.tags)], size)
            found[record.name] = Example(image_3hw.round().byte(), scores.select([i]), label_hw)
            reporter.advance()
        stop.leave_if_asked(f"after the class maps of {len(found)} of {len(tagged)} images", AGAIN)
    return [found[record.name] for record in tagged.records]


def _label(tagged: TaggedSet, record: Record, labels: Path | None, size: tuple[int, int]) -> Tensor:
    label_HW = read_truth(tagged, record) if labels is None else read_layer(labels, record, size)
    return torch.from_numpy(label_HW)


def small_label(label_HW: Tensor, indices: Sequence[int], size: tuple[int, int]) -> Tensor:
    """A smaller label map: the class that has at least the share SURE of the pixels under a small one, or none.

    Args:
        label_HW: uint8.
        indices: class indices that may be learnt; others become IGNORE_INDEX.
        size: (h, w).

    Returns:
        (h, w) uint8.
    """
    share_Chw = torch.cat(
        [F.interpolate((label_HW == index)[None, None].float(), size=size, mode="area")[0] for index in indices]
    )
    most_hw, place_hw = share_Chw.max(dim=0)
    return torch.tensor(indices, dtype=torch.uint8)[place_hw].masked_fill(most_hw < SURE, IGNORE_INDEX)


def learn(examples: Sequence[Example], num_classes: int, seed: int, reporter: Reporter, stop: StopRequest) -> Fit:
    """Learn from four fifths of the examples; the last fifth, in an order of the seed, decides which pass is kept.

    Raises:
        DataError: a class of the label maps lies in none of them.
        Interrupted: a signal arrived.
    """
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(examples), generator=random).tolist()
    last = max(1, len(examples) // HELD_OUT)
    learnt, held = [examples[i] for i in order[:-last]], [examples[i] for i in order[-last:]]
    weight_K = class_weights(learnt, num_classes)
    if not weight_K.any():
        raise DataError("no label map holds a sure pixel of a class of its image's tags", "take other --labels")
    refiner = Refiner()
    reporter.begin("passes over the images", PASSES * len(learnt))
    start, iou = score(refiner, held, num_classes)
    passes, thresholds, states = [iou], [start], [copy.deepcopy(refiner.state_dict())]
    reading = nn.ParameterList([torch.tensor(start), torch.tensor(SHARPNESS).log()])  # a score's odds; not kept
    optimiser = torch.optim.Adam([*refiner.parameters(), *reading], lr=RATE)
    for number in range(1, PASSES + 1):
        shuffled = torch.randperm(len(learnt), generator=random).tolist()
        for first in range(0, len(shuffled), IMAGES_A_STEP):
            some = shuffled[first : first + IMAGES_A_STEP]
            optimiser.zero_grad()
            for i in some:
                loss = loss_of(refiner, learnt[i], weight_K, reading[0], reading[1])
                if loss is not None:
                    (loss / len(some)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            reporter.advance(len(some), f"agreement {100 * max(passes):.1f}")
            stop.leave_if_asked(f"in pass {number} of {PASSES}", AGAIN)
        threshold, iou = score(refiner, held, num_classes)
        passes.append(iou)
        thresholds.append(threshold)
        states.append(copy.deepcopy(refiner.state_dict()))
    best = int(np.argmax(np.nan_to_num(passes, nan=-1.0)))
    refiner.load_state_dict(states[best])
    refiner.requires_grad_(requires_grad=False)
    return Fit(refiner, tuple(passes), tuple(thresholds), best, len(learnt), len(held))


def refined(refiner: Refiner, example: Example) -> Tensor:
    """Refined maps of an example, (R, h, w), each divided by its maximum as pseudo labels are; differentiable."""
    image_13hw = example.image_3hw[None].float() / 255
    size, dilations = (image_13hw.shape[2], image_13hw.shape[3]), strided(DILATIONS, STRIDE)
    maps_1Rhw = example.scores.at_size(size, antialias=True).values_Rhw[None]
    return normalised(refiner(negated_differences(image_13hw, dilations), maps_1Rhw, dilations)[0])


def loss_of(
    refiner: Refiner, example: Example, weight_K: Tensor, threshold: Tensor, sharpness: Tensor
) -> Tensor | None:
    """Mean over the classes of an image of the weighted cross-entropy of its sure pixels; None where there are none.

    Pixels of the class and all others count as much as each other.

    Args:
        refiner: what is learnt.
        example: the image.
        weight_K: of each class.
        threshold: score at which a class is as likely as not.
        sharpness: logarithm of how fast its odds grow with the score.
    """
    losses = []
    logits_Rhw = (refined(refiner, example) - threshold) * sharpness.exp()
    known_hw = example.label_hw != IGNORE_INDEX
    for k, logits_hw in zip(example.scores.class_R.tolist(), logits_Rhw, strict=True):
        own_hw = example.label_hw == k + 1
        other_hw = known_hw & ~own_hw
        if own_hw.any() and other_hw.any():
            both = F.softplus(-logits_hw[own_hw]).mean() + F.softplus(logits_hw[other_hw]).mean()
            losses.append(weight_K[k] * both / 2)
    return torch.stack(losses).mean() if losses else None


def class_weights(examples: Sequence[Example], num_classes: int) -> Tensor:
    """(K,): the mean number of images with sure pixels of a class over its own; 0 where there are none."""
    count_K = torch.zeros(num_classes)
    for example in examples:
        for k in example.scores.class_R.tolist():
            count_K[k] += bool((example.label_hw == k + 1).any())
    there_K = count_K > 0
    mean = count_K.sum() / there_K.sum().clamp_min(1)
    return torch.where(there_K, mean / count_K.clamp_min(1), 0.0)


@torch.no_grad()
def score(refiner: Refiner, examples: Sequence[Example], num_classes: int) -> tuple[float, float]:
    """The best threshold of the refined maps and their mIoU in [0, 1] with the label maps there."""
    sweep = ThresholdSweep(num_classes + 1, ORACLE_THRESHOLDS)
    for example in examples:
        maps = example.scores.with_values(refined(refiner, example))
        best_1hw, class_1hw = strongest(maps)
        sweep.update(best_1hw[0], class_1hw[0], example.label_hw)
    threshold, matrix = sweep.oracle()
    return threshold, matrix.mean_iou()
