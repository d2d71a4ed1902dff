"""`wsss demo`: every stage on generated scenes, from tags to masks of unseen images.

The network is trained from scratch, so nothing is downloaded. The scenes have exact masks, which are read for scoring
only.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wsss.config import Config
from wsss.data.dataset import open_data
from wsss.data.masks import read_mask
from wsss.data.records import TaggedSet
from wsss.data.scenes import SceneSettings, write_scenes
from wsss.errors import UsageError
from wsss.evaluation.tagging import tag_map
from wsss.inference.evaluate import evaluate_labels, evaluate_scores
from wsss.inference.labelling import Wanted, make_pseudo_labels
from wsss.inference.predicting import predict_masks
from wsss.inference.score import tag_scores
from wsss.machine import prepare_device
from wsss.models.checkpoint import file_hash, load_network
from wsss.outputs.pictures import contact_sheet, overlay, with_key, write_jpeg
from wsss.outputs.run import check_free
from wsss.reporting import Reporter
from wsss.training.start import train_classifier, train_segmenter

TILE_WIDTH = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoFigures:
    """Figures on unseen scenes; mIoU over all classes and the background.

    Attributes:
        tag_map: mean average precision of the tags.
        seed_miou: seeds, at one fixed threshold.
        pseudo_miou: pseudo labels made from the tags; ignored pixels count as wrong.
        segmentation_miou: predictions, which use the images only.
        seconds: duration of the whole demo.
    """

    tag_map: float
    seed_miou: float
    pseudo_miou: float
    segmentation_miou: float
    seconds: float

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def run_demo(config: Config, out: Path, reporter: Reporter, *, train: int, val: int, threshold: float) -> DemoFigures:
    """Generate scenes, train, label, train again, segment and score.

    Args:
        config: the settings; ``data.root`` is replaced by the scenes.
        out: output folder, new or empty.
        reporter: progress.
        train: scenes to train on.
        val: unseen scenes to score.
        threshold: background threshold of the seeds, in [0, 1], chosen in advance.

    Raises:
        UsageError: the folder is in use.
    """
    began = time.monotonic()
    check_free(out)
    scenes = out / "scenes"
    reporter.say(f"writing {train} + {val} scenes to {scenes}")
    write_scenes(scenes, train=train, val=val, seed=config.run.seed, settings=SceneSettings())
    config = config.model_copy(update={"data": config.data.model_copy(update={"root": scenes})})
    device = prepare_device(config.run)
    unseen = open_data(scenes, split="val")

    classifier = train_classifier(config, out / "cls", reporter)
    scores_NK, present_NK, _ = tag_scores(classifier, unseen, config, device)
    make_pseudo_labels(
        classifier,
        unseen,
        out / "pseudo",
        config,
        reporter,
        device=device,
        checkpoint_sha256=file_hash(out / "cls" / "last.pt"),
        wanted=Wanted(scores=True),
    )
    train_segmenter(config, out / "seg", reporter, init=out / "cls")
    network, _, path = load_network(out / "seg")
    predict_masks(
        network,
        unseen.records,
        out / "masks",
        config,
        reporter,
        device=device,
        checkpoint_sha256=file_hash(path),
        split="val",
        origin={"data": str(scenes.absolute()), "format": unseen.format},
    )
    write_jpeg(out / "overview.jpg", overview(unseen, out))
    return DemoFigures(
        tag_map=tag_map(scores_NK, present_NK),
        seed_miou=evaluate_scores(out / "pseudo", unseen, fixed_threshold=threshold).fixed.mean_iou,
        pseudo_miou=evaluate_labels(out / "pseudo", unseen).mean_iou,
        segmentation_miou=evaluate_labels(out / "masks", unseen).mean_iou,
        seconds=time.monotonic() - began,
    )


def overview(unseen: TaggedSet, out: Path, count: int = 4) -> np.ndarray:
    """Draw ``count`` scenes, (H, W, 3) RGB: a row each (scene, pseudo label, prediction, truth), then one key."""
    tiles, labels = [], []
    several = [record for record in unseen.records if len(record.tags) > 1] or list(unseen.records)
    for record in several[:count]:
        image_HW3 = record.decode()
        truth = unseen.mask_path(record)
        tiles.append((", ".join(unseen.classes[tag] for tag in record.tags), image_HW3))
        for caption, path in (
            ("pseudo label", out / "pseudo" / "labels" / f"{record.name}.png"),
            ("prediction", out / "masks" / "labels" / f"{record.name}.png"),
            ("truth", truth),
        ):
            if path is not None:
                labels.append(read_mask(path))
                tiles.append((caption, overlay(image_HW3, labels[-1])))
    held = np.concatenate([label_HW.ravel() for label_HW in labels])
    return with_key(contact_sheet(tiles, columns=4, tile_width=TILE_WIDTH), held, unseen.classes)


def clear(out: Path) -> None:
    """Delete the folder of an earlier demo.

    Raises:
        UsageError: the folder contains files that no demo writes.
    """
    known = {"scenes", "cls", "pseudo", "seg", "masks", "overview.jpg", "demo.json"}
    strange = sorted(path.name for path in out.iterdir() if path.name not in known) if out.is_dir() else []
    if strange:
        raise UsageError(f"{out} contains files that no demo wrote ({', '.join(strange[:3])})", "choose another -o")
    shutil.rmtree(out, ignore_errors=True)
