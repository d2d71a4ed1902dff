"""From a config to a running training, fresh or resumed: the two entry points behind the commands.

An end-to-end segmentation run may be taught (`segment.rounds`): a run of its own, in ``teacher``, labels the training
split in ``labels``, and the same start learns those. The teacher's labels are better from the first step on than what
a run could tell itself at its beginning (self-training; Xie et al., Noisy Student, 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from wsss.config import Config
from wsss.data.augment import TrainingImages
from wsss.data.layers import NO_SALIENCY, check_layers
from wsss.data.records import TaggedSet
from wsss.data.splits import open_training
from wsss.errors import Interrupted, MachineError, UsageError
from wsss.files import DiskError, sweep
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.settings import for_run
from wsss.machine import prepare_device
from wsss.models.checkpoint import (
    build_from,
    file_hash,
    find_checkpoint,
    load_network,
    network_from,
    part_of,
    read_checkpoint,
)
from wsss.models.network import Network
from wsss.outputs.lock import locked
from wsss.outputs.provenance import UNKNOWN, joined, of_data, of_labels
from wsss.outputs.run import check_free, check_resumable, check_same_data, create_run
from wsss.reporting import Reporter
from wsss.training.classify import ClassifyTask
from wsss.training.loop import Loop
from wsss.training.segment import SegmentTask

TEACHER, LABELS = "teacher", "labels"
"""Folders in a taught run: the run that teaches it and the labels this has made."""


def train_classifier(config: Config, run: Path, reporter: Reporter) -> Network:
    """Train on tags alone, into a new folder."""
    check_free(run)
    config = config.anchored()
    device = prepare_device(config.run)
    train, val = open_training(config, reporter)
    network = build_from(config, train.classes, decoder=False)
    network.supervision = of_data(config.data, saliency=False)
    with locked(run, reporter.say):
        create_run(run, config, train)
        loop = _classify_loop(config, run, network, train, val, device, reporter)
        loop.train()
    return loop.shown


def resume_classifier(run: Path, reporter: Reporter) -> Network:
    """Go on with a run of ``train_classifier`` from its last checkpoint."""
    with _locked_run(run, reporter):
        network, config, device, train, val = _take_up(run, reporter)
        if network.decoder is not None:
            raise UsageError(f"{run} trains a segmentation network", f"wsss train-seg --resume {run}")
        loop = _classify_loop(config, run, network, train, val, device, reporter)
        loop.resume()
        loop.train()
    return loop.shown


def train_segmenter(
    config: Config, run: Path, reporter: Reporter, *, labels: Path | None = None, init: Path | None = None
) -> Network:
    """Train a segmentation network, from label maps on disk or end to end, into a new folder.

    Args:
        config: the settings; the model section is the initial run's where there is one.
        run: the new folder.
        reporter: progress.
        labels: folder of label maps NAME.png; None makes pseudo labels inside each step.
        init: run of ``train-cls`` whose backbone and readout to start from.
    """
    check_free(run)
    config = for_run(config, config).anchored()
    device = prepare_device(config.run)
    classes = None
    start = None
    if init is not None:
        start, trained, _ = load_network(init)
        config = config.model_copy(
            update={
                "model": trained.model.model_copy(
                    update={"decoder_channels": config.model.decoder_channels, "weights": "none"}
                )
            }
        )
        classes = start.classes
    train, val = open_training(config, reporter, classes)
    if labels is not None:
        labels = find_labels(labels, train)
    elif config.data.saliency is not None:
        check_layers(config.data.saliency, train, "saliency map", NO_SALIENCY)
    network = build_from(config, train.classes, decoder=True)
    network.supervision = joined(
        () if start is None else start.supervision or UNKNOWN,
        of_data(config.data, saliency=labels is None),
        () if labels is None else of_labels(labels),
    )
    if start is not None:
        network.backbone.load_state_dict(start.backbone.state_dict())
        network.readout.load_state_dict(start.readout.state_dict())
    with locked(run, reporter.say):
        create_run(run, config, train)
        extra = {
            "labels": None if labels is None else str(labels.absolute()),
            "started": init is not None,
            "taught": labels is None and config.segment.rounds > 1,
            "init": None if init is None else str(init.absolute()),
        }
        loop = _segment_loop(config, run, network, train, val, device, reporter, extra)
        if extra["taught"]:
            loop.save()
            _be_taught(config, run, train, device, reporter, init)
        loop.train()
    return loop.shown


def resume_segmenter(run: Path, reporter: Reporter) -> Network:
    """Go on with a run of ``train_segmenter`` from its last checkpoint."""
    with _locked_run(run, reporter):
        network, config, device, train, val = _take_up(run, reporter)
        if network.decoder is None:
            raise UsageError(f"{run} trains a classifier", f"wsss train-cls --resume {run}")
        extra = part_of(read_checkpoint(find_checkpoint(run)), "task", run)
        loop = _segment_loop(config, run, network, train, val, device, reporter, extra)
        loop.resume()
        if extra.get("taught") and loop.state.step == 0:
            _be_taught(config, run, train, device, reporter, extra["init"] and Path(extra["init"]))
        loop.train()
    return loop.shown


def _be_taught(
    config: Config, run: Path, train: TaggedSet, device: torch.device, reporter: Reporter, init: Path | None
) -> None:
    """Train the teacher of a run and let it label the training split; what is there of both already is kept."""
    teacher = run / TEACHER
    section = config.segment.model_copy(update={"rounds": config.segment.rounds - 1})
    try:
        if (teacher / "last.pt").is_file():
            network = resume_segmenter(teacher, reporter)
        else:
            reporter.say(f"training the teacher in {teacher}")
            network = train_segmenter(config.model_copy(update={"segment": section}), teacher, reporter, init=init)
        digest = file_hash(teacher / "last.pt")
        make_pseudo_labels(network, train, run / LABELS, config, reporter, device=device, checkpoint_sha256=digest)
    except Interrupted as error:
        raise Interrupted(error.problem, f"--resume {run}") from error
    except DiskError as error:
        raise MachineError(error.problem, f"{error.remedy}, then --resume {run}") from error
    except MachineError as error:
        raise MachineError(error.problem, error.fix.replace(f"--resume {teacher}", f"--resume {run}")) from error


def find_labels(folder: Path, train: TaggedSet) -> Path:
    """Where the label maps of a folder lie: in it, or in its ``labels``; every image must have one."""
    inner = folder / "labels" if (folder / "labels").is_dir() else folder
    fix = f"wsss make-pseudo RUN --data {train.root} --split {train.split} -o {folder}"
    check_layers(inner, train, "label map", fix)
    return inner


@contextmanager
def _locked_run(run: Path, reporter: Reporter) -> Iterator[None]:
    """A run that has a checkpoint to go on from, without what a killed process was writing."""
    check_resumable(run)
    find_checkpoint(run)
    with locked(run, reporter.say):
        sweep(run)
        yield


def _take_up(run: Path, reporter: Reporter) -> tuple[Network, Config, torch.device, TaggedSet, TaggedSet | None]:
    path = find_checkpoint(run)
    network, config = network_from(read_checkpoint(path), path)
    train, val = open_training(config, reporter, network.classes)
    check_same_data(run, train)
    return network, config, prepare_device(config.run), train, val


def _classify_loop(
    config: Config,
    run: Path,
    network: Network,
    train: TaggedSet,
    val: TaggedSet | None,
    device: torch.device,
    reporter: Reporter,
) -> Loop:
    images = TrainingImages(train, config.augment, seed=config.run.seed)
    return Loop(run, config, network, ClassifyTask(config, val, device), images, device=device, reporter=reporter)


def _segment_loop(
    config: Config,
    run: Path,
    network: Network,
    train: TaggedSet,
    val: TaggedSet | None,
    device: torch.device,
    reporter: Reporter,
    extra: Mapping[str, Any],
) -> Loop:
    taught = extra.get("taught", False)
    labels = run / LABELS / "labels" if taught else extra["labels"] and Path(extra["labels"])
    saliency = config.data.saliency if taught or labels is None else None
    images = TrainingImages(train, config.augment, seed=config.run.seed, labels=labels, saliency=saliency)
    task = SegmentTask(config, val, device, from_disk=labels is not None, started=extra["started"])
    return Loop(run, config, network, task, images, device=device, reporter=reporter, extra=extra)
