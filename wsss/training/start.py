"""From a config to a finished training, new or resumed: what the commands ``train-cls`` and ``train-seg`` call.

Each goes config -> data -> network -> step -> loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from wsss.config import Config
from wsss.data.augment import TrainingImages
from wsss.data.dataset import list_splits
from wsss.data.layers import NO_SALIENCY, check_layers
from wsss.data.lessons import epochs_of, teaches_nothing
from wsss.data.memory import MEMORY, Limits, open_memory
from wsss.data.records import TaggedSet, counted
from wsss.data.splits import open_training, with_range_of
from wsss.errors import DataError, Interrupted, UsageError
from wsss.files import sweep
from wsss.inference.settings import remark_on_model
from wsss.maps.recorder import MapSettings, check_map_settings
from wsss.models.checkpoint import (
    build_from,
    find_checkpoint,
    network_from,
    part_of,
    read_checkpoint,
)
from wsss.models.network import Network
from wsss.outputs.asked import asked_for
from wsss.outputs.choices import Choices, training_choices, training_words
from wsss.outputs.lock import locked
from wsss.outputs.provenance import LABEL_MAPS, UNKNOWN, all_of, data_supervision, labels_supervision
from wsss.outputs.run import (
    check_free,
    check_resumable,
    check_same_data,
    create_run,
    note_resumed,
    remark_on_settings,
)
from wsss.reporting import Reporter, Silent
from wsss.stopping import stop_requests
from wsss.training.ceiling import TRUE_MASKS, ceiling_config, with_masks, write_true_masks
from wsss.training.classify import ClassifyStep, tag_validation
from wsss.training.corrected import Corrected, corrected_from, find_corrected
from wsss.training.extend import Extended, ExtendStep, Replayed, check_extension, memory_of, teacher_of
from wsss.training.given_labels import check_pixels, edited_labels, find_labels, remark_on_changes
from wsss.training.guide import check_guide_is_used, find_guide, guide_of_task
from wsss.training.head import fit_head, mode_of
from wsss.training.initial import Initial
from wsss.training.loop import Loop, RunContext, steps_of
from wsss.training.ranks import ALONE, Ranks
from wsss.training.rounds import LABELS, learn_from_teacher, teacher_config
from wsss.training.segment import SegmentStep, mask_validation, with_finetune

SILENT = Silent()


def train_classifier(
    config: Config,
    run: str | Path,
    reporter: Reporter = SILENT,
    *,
    init: str | Path | None = None,
    extend: str | Path | None = None,
    memory: Limits | None = None,
    guide: str | Path | None = None,
    ranks: Ranks = ALONE,
) -> Network:
    """Train on tags alone, in a new folder; returns the network that is saved for use.

    Args:
        config: the settings.
        run: the new folder.
        reporter: progress and remarks.
        init: a run to go on from: its network and its classes, with a new optimiser.
        extend: a run whose network is to learn the classes of the data that it does not know (`wsss.training.extend`).
        memory: of an extension: how large the memory is that is kept in the run; None: there is none.
        guide: a folder of label maps, for an edit of attention that reads them.
        ranks: the processes that train it together (`wsss.training.ranks.joined`), each of which calls this.

    Raises:
        UsageError: the folder is in use, or the settings do not fit together.
        DataError: the data set or the weights do not fit.
        MachineError: the device is missing, or the disk refuses.
        Interrupted: a signal asked to stop; the state is saved.
    """
    run = Path(run)
    ranks.lead(partial(check_free, run))
    init, extend, guide = (None if folder is None else Path(folder) for folder in (init, extend, guide))
    if extend is not None and (init is not None or guide is not None):
        other = "--guide" if init is None else "--init"
        raise UsageError(f"--extend and {other} exclude each other", f"leave out {other} or --extend")
    asked = asked_for(config, init=init, extend=extend, guide=guide)
    if memory is not None:
        asked |= memory.asked()
    config = config.anchored()
    start = None if init is None else Initial.of(init)
    grown = None if extend is None else Extended.of(extend)
    start = grown or start
    if start is not None:
        config = start.classifier_config(config, reporter.say)
    if grown is None:
        check_guide_is_used(config, guide)
    context = RunContext(run, config, ranks.device(config.run), reporter, ranks)
    opened = partial(open_training if start is None else start.open_training, config, reporter)
    train, val = ranks.lead(opened)
    config = with_range_of(config, train)
    if guide is not None:
        guide = ranks.lead(partial(find_guide, guide, train, reporter))
    if start is not None:
        config = start.with_finetune(config, train)
    if grown is not None:
        check_extension(config, grown, train)
    context = replace(context, config=config)
    network = build_from(config, train.classes, decoder=False)
    network.supervision = all_of(
        () if start is None else start.network.supervision or UNKNOWN,
        data_supervision(config.data, saliency=False, unknown=train.has_unknown(), of_objects=train.of_objects),
        () if guide is None else labels_supervision(guide),
    )
    if start is not None:
        start.give(network, config.model.attention)
    beside = {"init": init and init.absolute(), "guide": guide}
    task: dict[str, Any] = {name: str(path) for name, path in beside.items() if path is not None}
    kept = None
    if grown is not None:
        ranks.lead(partial(grown.write_memory, run, train, config, memory, reporter))
        kept = None if memory is None else open_memory(run / MEMORY, train.classes)
        task |= grown.task(kept)
    loop = classify_loop(context, network, train, val, task, grown, kept)
    choices = ranks.lead(partial(_say_choices, loop, train, val))
    with ranks.hold(partial(locked, run, reporter.say), f"--resume {run}"):
        layers = _guide_layer(task)
        ranks.lead(partial(create_run, run, config, train, val, choices, layers=layers, asked=asked))
        _fit_head(loop, train)
        loop.train()
    return loop.shown


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """What may differ for a run that is resumed: where its data lie, and its loader processes; None: as before.

    Attributes:
        root: the data folder. A tags table and saliency maps that lay in it are expected in it.
        tags: the tags table.
        saliency: the folder of saliency maps.
        labels: the folder of label maps that the run learns from.
        workers: loader processes; they change no result.
        device: where it is trained now; another one rounds otherwise.
        verify_steps: one step in so many is computed twice; it changes no result.
    """

    root: Path | None = None
    tags: Path | None = None
    saliency: Path | None = None
    labels: Path | None = None
    workers: int | None = None
    device: str | None = None
    verify_steps: int | None = None

    def __bool__(self) -> bool:
        """Whether data were moved."""
        return replace(self, workers=None, device=None, verify_steps=None) != Moved()


STAYED = Moved()


def resume_classifier(run: Path, reporter: Reporter, moved: Moved = STAYED, *, ranks: Ranks = ALONE) -> Network:
    """Continue a run of ``train_classifier`` from its last checkpoint.

    Args:
        run: its folder.
        reporter: progress and remarks.
        moved: where its data lie now. They must have the same names, tags and bytes.
        ranks: see ``train_classifier``; any number of processes continues a run.

    Raises:
        DataError: the data are not those that the run began with, or the run cannot be resumed.
        UsageError, MachineError, Interrupted: see ``train_classifier``.
    """
    with _locked_run(run, reporter, ranks):
        loop, train = _resumed(run, reporter, moved, ranks, decoder=False)
        _fit_head(loop, train)
        loop.train()
    return loop.shown


def train_segmenter(
    config: Config,
    run: str | Path,
    reporter: Reporter = SILENT,
    *,
    labels: str | Path | None = None,
    init: str | Path | None = None,
    corrected: str | Path | None = None,
    true_masks: bool = False,
    ranks: Ranks = ALONE,
) -> Network:
    """Train a segmentation network, from label maps on disk or end to end, in a new folder.

    Args:
        config: the settings; the model section is the initial run's where there is one.
        run: the new folder.
        reporter: progress and remarks.
        labels: folder of label maps NAME.png; None makes pseudo labels inside each step.
        init: run of ``train-cls`` whose backbone and readout to start from.
        corrected: folder of masks NAME.png that people made of some images: learnt instead of their pseudo labels.
        true_masks: train on the masks of the data set, in as many steps as all rounds have: the ceiling of the run
            that learns from tags (``wsss.training.ceiling``).
        ranks: see ``train_classifier``.

    Raises:
        UsageError, DataError, MachineError, Interrupted: see ``train_classifier``.
    """
    run = Path(run)
    labels, init, corrected = (None if folder is None else Path(folder) for folder in (labels, init, corrected))
    asked = asked_for(config, init=init, labels=labels, corrected=corrected)
    drawn = None
    if true_masks and labels is not None:
        raise UsageError("true masks and label maps were given at once", "leave out one of the two")
    edited: list[str] = []
    ranks.lead(partial(check_free, run))
    config = config.anchored()
    start = None if init is None else Initial.of(init)
    if start is not None:
        remark_on_model(config, start.config, reporter.say, but=("decoder_channels",))
        own = {"decoder_channels": config.model.decoder_channels, "weights": "none"}
        config = config.model_copy(update={"model": start.config.model.model_copy(update=own)})
    context = RunContext(run, config, ranks.device(config.run), reporter, ranks)
    train, val = ranks.lead(partial(open_training, config, reporter, None if start is None else start.network.classes))
    config = with_range_of(config, train)
    if true_masks:
        train = with_masks(train, reporter)
        config = ceiling_config(config, len(train))
    config = with_finetune(config, len(train), None if start is None else start.config)
    context = replace(context, config=config)
    if labels is not None:
        labels, edited = ranks.lead(partial(_checked_labels, labels, train, reporter))
        if config.data.saliency is not None:
            reporter.say(f"the saliency maps of {config.data.saliency} are not used: the label maps are given")
    elif config.data.saliency is not None:
        ranks.lead(partial(check_layers, config.data.saliency, train, "saliency map", NO_SALIENCY))
    if corrected is not None:
        drawn = ranks.lead(partial(find_corrected, corrected, train, reporter))
    network = build_from(config, train.classes, decoder=True)
    network.supervision = all_of(
        () if start is None else start.network.supervision or UNKNOWN,
        data_supervision(
            config.data, saliency=labels is None, unknown=train.has_unknown(), of_objects=train.of_objects
        ),
        () if labels is None else labels_supervision(labels),
        LABEL_MAPS if edited else (),
        TRUE_MASKS if true_masks else (),
        () if drawn is None else drawn.supervision(len(train)),
    )
    if start is not None:
        start.give(network, config.model.attention)
    task = {
        "labels": None if labels is None else str(labels.absolute()),
        "started": init is not None,
        "taught": labels is None and not true_masks and config.segment.rounds > 1,
        "init": None if init is None else str(init.absolute()),
        "true_masks": true_masks,
        "corrected": None if drawn is None else drawn.to_task(),
    }
    loop = segment_loop(context, network, train, val, task)
    choices = ranks.lead(partial(_say_choices, loop, train, val))
    with ranks.hold(partial(locked, run, reporter.say), f"--resume {run}"):
        layers = _layers(config, labels, drawn)
        ranks.lead(partial(create_run, run, config, train, val, choices, asked=asked, layers=layers))
        if task["taught"] or true_masks:
            loop.save()
            _make_labels(loop, train)
        loop.train()
    return loop.shown


def resume_segmenter(run: Path, reporter: Reporter, moved: Moved = STAYED, *, ranks: Ranks = ALONE) -> Network:
    """Continue a run of ``train_segmenter`` from its last checkpoint; see ``resume_classifier``."""
    with _locked_run(run, reporter, ranks):
        loop, train = _resumed(run, reporter, moved, ranks, decoder=True)
        if (loop.task.get("taught") or loop.task.get("true_masks")) and loop.state.step == 0:
            _make_labels(loop, train, moved)
        loop.train()
    return loop.shown


def classify_loop(
    context: RunContext,
    network: Network,
    train: TaggedSet,
    val: TaggedSet | None,
    task: Mapping[str, Any] | None = None,
    teacher: Extended | None = None,
    memory: TaggedSet | None = None,
) -> Loop:
    """The training of a classifier; with a teacher one that learns new classes, and perhaps from a memory of old ones.

    In ``task`` "init" is the run that it goes on from, "guide" the folder of `find_guide`, and "head" says how the head
    was fitted, once it is.
    """
    config = context.config
    guide = guide_of_task(task or {}, context.run)
    if teacher is None:
        images = TrainingImages(train, config.augment, seed=config.run.seed, guide=guide)
    else:
        images = Replayed(train, memory, config.augment, seed=config.run.seed)
    mode, whole = mode_of(config, train), steps_of(images, config.classify)
    each = whole // epochs_of(len(images), config.classify)
    if teacher is None:
        step = ClassifyStep(network, config, whole, each, mode)
    else:
        step = ExtendStep(network, teacher.network, config, whole, each, mode)
    return Loop(context, step, images, tag_validation(val, config, context.device, context.ranks), task)


def segment_loop(
    context: RunContext, network: Network, train: TaggedSet, val: TaggedSet | None, task: Mapping[str, Any]
) -> Loop:
    """The training of a segmentation network.

    Args:
        context: the run.
        network: with a decoder.
        train: images and tags.
        val: None validates nothing.
        task: "labels", the folder of label maps or None; "started", whether the backbone has learnt the tags already;
            "taught", whether a teacher makes the labels; "init", the run that the teacher starts from, or None;
            "corrected", masks of people (`Corrected.to_task`) or None.
    """
    config = context.config
    labels = task["labels"] and Path(task["labels"])
    if task.get("taught"):
        check_map_settings(network, MapSettings.of(config.maps))
    if task.get("taught") or task.get("true_masks"):
        labels = context.run / LABELS / "labels"
    saliency = config.data.saliency if task.get("taught") or labels is None else None
    drawn = corrected_from(task.get("corrected"))
    people = None if drawn is None else (drawn.folder, drawn.names)
    images = TrainingImages(
        train, config.augment, seed=config.run.seed, labels=labels, saliency=saliency, corrected=people
    )
    total = steps_of(images, config.segment)
    step = SegmentStep(network, config, total, labels_given=labels is not None, started=task["started"])
    validation = mask_validation(val, config, context.device, context.reporter.say, context.ranks)
    return Loop(context, step, images, validation, task)


def _checked_labels(folder: Path, train: TaggedSet, reporter: Reporter) -> tuple[Path, list[str]]:
    """Where given label maps lie, and the names of those that were edited; what is odd in them is said."""
    labels = find_labels(folder, train)
    remark_on_changes(labels, train, reporter)
    edited = edited_labels(labels, train, reporter)
    check_pixels(labels, train, reporter, edited)
    return labels, edited


def _fit_head(loop: Loop, train: TaggedSet) -> None:
    """Fit the head first where ``classify.finetune`` asks for it and it is new; a run stopped in it begins it again."""
    context = loop.context
    mode = mode_of(context.config, train)
    if mode == "all" or "head" in loop.task or (mode == "top" and loop.task.keys() & {"init", "extend"}):
        return
    loop.save()
    try:
        with stop_requests() as stop:
            found = fit_head(
                loop.step.network,
                train,
                context.config,
                context.device,
                lambda: stop.leave_if_asked("", ""),
                context.ranks,
            )
    except Interrupted as error:
        raise Interrupted("stopped while the head was fitted; the state is saved", f"--resume {context.run}") from error
    loop.task["head"] = found
    if loop.step.average is not None:
        loop.step.average.network.load_state_dict(loop.step.network.state_dict())
    loop.save()
    context.reporter.say(
        f"fitted the head in {counted(found['steps'], 'step')}"
        + (
            f", chosen by {counted(found['held_out'], 'held-out image')} (loss {found['held_out_loss']:.4f})"
            if found["held_out"]
            else "; there are too few images to hold some out"
        )
    )


def _make_labels(loop: Loop, train: TaggedSet, moved: Moved = STAYED) -> None:
    """Make the labels that a run learns from: those of its teacher (``learn_from_teacher``), or the true masks."""
    if loop.task.get("true_masks"):
        context = loop.context
        context.ranks.lead(partial(write_true_masks, train, context.run / LABELS, context.config, context.reporter))
        return
    context, init = loop.context, loop.task["init"] and Path(loop.task["init"])

    def train_teacher(teacher: Path) -> Network:
        if context.ranks.lead((teacher / "last.pt").is_file):
            return resume_segmenter(teacher, context.reporter, moved, ranks=context.ranks)
        context.reporter.say(f"training the teacher in {teacher}")
        drawn = corrected_from(loop.task.get("corrected"))
        folder, config = None if drawn is None else drawn.folder, teacher_config(context.config)
        return train_segmenter(config, teacher, context.reporter, init=init, corrected=folder, ranks=context.ranks)

    learn_from_teacher(context, loop.step, train, train_teacher)


def _resumed(run: Path, reporter: Reporter, moved: Moved, ranks: Ranks, *, decoder: bool) -> tuple[Loop, TaggedSet]:
    """The loop of a run in the state of its last checkpoint, and its training split."""
    path = find_checkpoint(run)
    content = ranks.agree(partial(read_checkpoint, path))  # by all, before rank 0 writes another one
    network, config = network_from(content, path)
    if decoder and network.decoder is None:
        raise UsageError(f"{run} trains a classifier", f"wsss train-cls --resume {run}")
    if not decoder and network.decoder is not None:
        raise UsageError(f"{run} trains a segmentation network", f"wsss train-seg --resume {run}")
    remark_on_settings(run, config, reporter)
    if moved.root == config.data.root:
        moved = replace(moved, root=None)
    config = config.moved({"root": moved.root, "tags": moved.tags, "saliency": moved.saliency})
    machine = {
        key: value for key in ("workers", "device", "verify_steps") if (value := getattr(moved, key)) is not None
    }
    if moved.device not in (None, config.run.device):
        reporter.say(
            f"{run} was trained with device {config.run.device} before, now {moved.device}: it rounds otherwise"
        )
    config = config.model_copy(update={"run": config.run.model_copy(update=machine)})
    _check_there(run, config.data.root, "data", "data folder")
    context = RunContext(run, config, ranks.device(config.run), reporter, ranks)
    task = part_of(content, "task", run) if decoder else content.get("task") or {}
    teacher = teacher_of(task, run)
    opened = partial(open_training, config, reporter, network.classes)
    train, val = ranks.lead(opened if teacher is None else partial(teacher.open_training, config, reporter))
    labels = task.get("labels") and Path(task["labels"])
    if moved.labels is not None:
        if labels is None:
            raise UsageError(f"{run} makes its own labels, it takes no --labels", f"--resume {run}")
        labels = ranks.lead(partial(find_labels, moved.labels, train)).absolute()
        task = {**task, "labels": str(labels)}
    _check_there(run, labels, "labels", "folder of label maps")
    if task.get("true_masks"):
        train = with_masks(train, reporter)
    drawn = corrected_from(task.get("corrected"))
    layers = _layers(config, labels, drawn) | _guide_layer(task)
    ranks.lead(partial(check_same_data, run, train, val, layers, moved=bool(moved)))
    loop = (
        segment_loop(context, network, train, val, task)
        if decoder
        else classify_loop(context, network, train, val, task, teacher, memory_of(task, run, network))
    )
    ranks.lead(lambda: note_resumed(run, config, _say_choices(loop, train, val), moved=bool(moved)))
    loop.resume(content)
    if moved:
        loop.save()  # so that the next --resume finds the data, also after a kill or a stop of the teacher
    return loop, train


def _check_there(run: Path, folder: Path | None, option: str, what: str) -> None:
    """Refuse a run whose folder of data has gone; the fix says how to name its new place."""
    if folder is not None and not folder.is_dir():
        raise DataError(
            f"{folder}: no such {what}; {run} began with it",
            f"--resume {run} --{option} DIR  # where it lies now",
        )


def _layers(config: Config, labels: Path | None, drawn: Corrected | None = None) -> dict[str, Path]:
    """Folders of PNGs that a segmentation learns from beside the images: label maps, saliency maps, corrected masks."""
    people = {} if drawn is None else {"corrected": drawn.folder}
    if labels is not None:
        return {"labels": labels, **people}
    return people if config.data.saliency is None else {"saliency": config.data.saliency, **people}


def _guide_layer(task: Mapping[str, Any]) -> dict[str, Path]:
    """The label maps that guide the attention of a classifier."""
    return {"guide": Path(task["guide"])} if task.get("guide") else {}


def _say_choices(loop: Loop, train: TaggedSet, val: TaggedSet | None) -> Choices:
    """Say what this training chose by itself, in one line; returns it for ``run.json``."""
    context = loop.context
    data, scored = context.config.data, 0
    if val is not None:
        segments = loop.step.network.decoder is not None
        scored = sum(val.has_truth(record) for record in val.records) if segments else len(val)
    splits = list_splits(train.root, data) if val is None else ()
    others = [split for split in splits if split != train.split]
    choices = training_choices(context.config.run, context.device, train, val, scored=scored, others=others)
    choices["steps"] = loop.total
    context.reporter.say(training_words(choices, train))
    context.reporter.say(_steps_words(loop, train, choices))
    return choices


def _steps_words(loop: Loop, train: TaggedSet, choices: Choices) -> str:
    """What is trained in how many steps; a classifier's is kept in ``choices`` as ``finetune``."""
    if loop.step.network.decoder is not None:
        what = (
            "the decoder and the upper half of the blocks" if loop.config.segment.finetune == "top" else "all weights"
        )
        return f"trains {what}, {counted(loop.total, 'step')}"
    mode = choices["finetune"] = mode_of(loop.context.config, train)
    if mode == "all":
        return f"trains all weights, {counted(loop.total, 'step')}"
    if mode == "top" and loop.task.keys() & {"init", "extend"}:
        return f"trains the upper half of the blocks and the head, {counted(loop.total, 'step')}"
    if mode == "top":
        return f"fits the head first, then {counted(loop.total, 'step')} of the upper half of the blocks"
    why = ": every class is in every image, and training on such tags makes it worse" if teaches_nothing(train) else ""
    return f"fits the head alone; the backbone keeps its weights{why}"


@contextmanager
def _locked_run(run: Path, reporter: Reporter, ranks: Ranks) -> Iterator[None]:
    """Hold a run that has a checkpoint to resume from; temporary files of a killed process are removed."""
    ranks.lead(partial(check_resumable, run))
    ranks.lead(partial(find_checkpoint, run))
    with ranks.hold(partial(locked, run, reporter.say), f"--resume {run}"):
        ranks.lead(partial(sweep, run))
        yield
