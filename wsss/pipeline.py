"""`wsss run`: from photos with tags to masks of new ones in one folder, a stage after the other.

Each stage calls the function of its own command. A stage that was stopped continues, and one that is done is looked at
again by that function, so that changed data are found; the data are inspected once.

The folder holds ``config.yaml`` (as asked for), ``plan.json``, ``check.csv``, the runs ``cls`` and ``seg``, ``masks``
of new images or of those that no split lists, ``val`` with masks of the validation split where it can be scored, and
``report.html``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss import __version__
from wsss.budget import budget_seconds, planned, resolved
from wsss.config import Config, plain_settings, resolve, to_yaml
from wsss.data.check import inspect_data, write_list
from wsss.data.dataset import format_of, list_splits, open_data, open_unlabelled
from wsss.data.findings import telling
from wsss.data.records import Record, counted
from wsss.data.splits import open_training
from wsss.errors import DataError, UsageError, WsssError
from wsss.files import write_whole
from wsss.inference.predicting import predict_readable
from wsss.inference.settings import for_run, predict_words
from wsss.machine import prepare_device
from wsss.models.checkpoint import file_hash, load_network
from wsss.outputs.lock import content, locked
from wsss.outputs.run import SETTINGS, read_facts
from wsss.report.page import write_page
from wsss.report.sources import Scoring
from wsss.reporting import Reporter, Silent, first_few
from wsss.stopping import AGAIN
from wsss.training.start import (
    Moved,
    resume_classifier,
    resume_segmenter,
    train_classifier,
    train_segmenter,
)

PLAN, LIST, PAGE = "plan.json", "check.csv", "report.html"
CLASSIFIER, SEGMENTER, MASKS, SCORED = "cls", "seg", "masks", "val"
"""Folders of the two runs, of the masks of images that no split lists, and of those of the validation split."""
FREE = ("run.workers", "run.device", "run.verify_steps")
"""Keys that the same command may change when it continues: they say where it computes, not what."""
SKIPPED = tuple(f"image-{why}" for why in ("irregular", "empty", "unknown", "huge", "truncated", "broken", "turned"))
SKIPPED += ("image-undecodable",)
"""Kinds of errors whose images training leaves out, as long as they are few (``data.bad_limit``)."""


class Stages:
    """A reporter that names the present stage.

    Args:
        inner: gets progress and remarks.
    """

    names = ("check", "train-cls", "train-seg", "predict", "report")

    def __init__(self, inner: Reporter) -> None:
        self._inner = inner
        self._now = ""

    def enter(self, name: str) -> None:
        """The next stage begins."""
        self._now = f"{self.names.index(name) + 1}/{len(self.names)} {name}"
        self.say("begins")

    def begin(self, what: str, total: int, done: int = 0) -> None:
        """A task of the stage."""
        self._inner.begin(f"{self._now}: {what}", total, done)

    def advance(self, count: int = 1, note: str = "") -> None:
        """See ``Reporter``."""
        self._inner.advance(count, note)

    def say(self, text: str) -> None:
        """A remark of the stage."""
        self._inner.say(f"{self._now}: {text}")


def run_all(
    config: Config, out: Path, reporter: Reporter, images: Path | None = None, budget: str | None = None
) -> dict[str, Any]:
    """Do all stages that are not done yet.

    Args:
        config: the settings of all stages.
        out: the folder; new, or of the same settings.
        reporter: progress and remarks.
        images: what to segment in the end; None takes the images of the data folder that no split lists.
        budget: a time such as "2h", into which the training is to fit; the choice is made once and kept.

    Returns:
        Paths by name ("output", "report", "cls", "seg", and "masks" and "val" where there are any), and "images", the
        number of masks of new images.

    Raises:
        UsageError: the folder holds something else, or was begun with other settings.
        DataError: the data are at fault; what was found stands in ``check.csv``.
        MachineError: this machine lacks something.
        Interrupted: a signal arrived; the same command continues.
    """
    config, stages = config.anchored(), Stages(reporter)
    images = None if images is None else images.absolute()
    if config.data.root is None:
        raise UsageError("no data folder was given", f"wsss run --data DIR -o {out}")
    _check_free(out)
    with locked(out, reporter.say), _same_command(out):
        config, chosen = _within(budget, config, out, reporter)
        plan = _keep_plan(out, config, images, chosen)
        stages.enter("check")
        _check(plan, config, stages)
        stages.enter("train-cls")
        moved = Moved(workers=config.run.workers, device=config.run.device, verify_steps=config.run.verify_steps)
        _train(out / CLASSIFIER, lambda run: train_classifier(config, run, stages), resume_classifier, stages, moved)
        stages.enter("train-seg")
        init = out / CLASSIFIER
        _train(
            out / SEGMENTER,
            lambda run: train_segmenter(config, run, stages, init=init),
            resume_segmenter,
            stages,
            moved,
        )
        stages.enter("predict")
        made = _predict(config, out, stages, images)
        stages.enter("report")
        pages = [out / name for name in (CLASSIFIER, SEGMENTER, SCORED)]
        scoring = Scoring(data=None, reading=config.data)
        write_page([path for path in pages if path.is_dir()], out / PAGE, stages, scoring=scoring)
    parts = {name: str(out / name) for name in (CLASSIFIER, SEGMENTER, *made)}
    return {"output": str(out), "report": str(out / PAGE), **parts, "images": made.get(MASKS, 0)}


def _within(asked: str | None, config: Config, out: Path, reporter: Reporter) -> tuple[Config, dict[str, Any] | None]:
    """The config that fits into a time, and what is kept of the choice; that of the folder where it was made before."""
    if asked is None:
        return config, None
    seconds = budget_seconds(asked)
    if (out / PLAN).is_file():
        kept = _read_plan(out / PLAN).get("budget")
        if isinstance(kept, dict) and kept.get("asked") == asked:
            return resolved(config, [*kept["keys"].items()]), kept
        return config, {"asked": asked}
    device = prepare_device(config.run)
    train, _ = open_training(config, Silent())
    reporter.say(f"measures a few steps on {device.type} for --budget {asked}")
    choice = planned(config, len(train), seconds, device)
    reporter.say(choice.message(asked))
    facts = {"asked": asked, "keys": dict(choice.option.keys), "chosen": choice.option.words, "seconds": choice.seconds}
    return resolved(config, choice.option.keys), facts


def _check_free(out: Path) -> None:
    """Refuse a folder with other content."""
    if out.exists() and not (out.is_dir() and (not content(out) or (out / PLAN).is_file())):
        raise UsageError(f"{out} is in use: wsss run needs a folder of its own", "choose another -o")


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, and which of it is done, in ``plan.json`` and ``config.yaml``."""

    out: Path
    facts: dict[str, Any]

    def is_done(self, stage: str) -> bool:
        """Whether a stage need not be looked at again."""
        return stage in self.facts["done"]

    def note_done(self, stage: str, seconds: float) -> None:
        """Keep that a stage is done, and in how many seconds."""
        self.facts["done"][stage] = round(seconds, 1)
        self.write()

    def write(self) -> None:
        """Write ``plan.json``."""
        write_whole(self.out / PLAN, json.dumps(self.facts, indent=2) + "\n")


def _keep_plan(out: Path, config: Config, images: Path | None, budget: dict[str, Any] | None) -> Plan:
    """The plan of the folder; a new one where there is none.

    Raises:
        UsageError: it was begun with other settings.
    """
    path, settings = out / PLAN, out / SETTINGS
    asked = None if images is None else str(images)
    if path.is_file() and settings.is_file():
        began, now = (plain_settings(one) for one in (resolve(settings, say=lambda text: None), config))
        differing = [
            f"{key} {json.dumps(began[key])}, now {json.dumps(value)}"
            for key, value in now.items()
            if value != began[key] and key not in FREE
        ]
        plan = Plan(out, _read_plan(path))
        if plan.facts.get("images") != asked:
            differing.append(f"images {json.dumps(plan.facts.get('images'))}, now {json.dumps(asked)}")
        if plan.facts.get("budget") != budget:
            differing.append("another budget")
        if differing:
            what = f"{out} was begun with other settings: {first_few(differing)}"
            raise UsageError(what, f"-c {settings}  # continues it; or choose another -o")
        return plan
    plan = Plan(out, {"wsss": __version__, "command": sys.argv, "images": asked, "budget": budget, "done": {}})
    write_whole(settings, to_yaml(config))
    plan.write()
    return plan


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(facts["done"], dict):
            return dict(facts)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    raise DataError(f"{path}: cannot be read", f"rm {path}  # the data are then inspected again")


@contextmanager
def _same_command(out: Path) -> Iterator[None]:
    """Errors that say how to resume a run of the folder say how to continue the whole."""
    try:
        yield
    except WsssError as error:
        for run in (out / CLASSIFIER, out / SEGMENTER):
            if "--data" not in error.fix:
                error.fix = error.fix.replace(f"--resume {run}", AGAIN)
        raise


def _check(plan: Plan, config: Config, stages: Stages) -> None:
    """Inspect the data once; stop where training or a later score would."""
    if plan.is_done("check"):
        stages.say(f"done before; {plan.out / LIST} lists what was found")
        return
    began, root = time.monotonic(), config.data.root
    assert root is not None
    found = inspect_data(root, stages, reading=config.data, saliency=config.data.saliency, section=config.classify)
    write_list(plan.out / LIST, found.all_findings)
    warnings = found.count("warning") + len(found.lessons)
    stages.say(
        f"{counted(found.images, 'image')}: {counted(found.count('error'), 'error')}, {counted(warnings, 'warning')}"
        f"; {plan.out / LIST} lists them"
    )
    stopping = [one for one in found.findings if one.severity == "error" and one.kind not in SKIPPED]
    if stopping:
        first = f"{stopping[0].kind} at {stopping[0].where}: {stopping[0].what}"
        raise DataError(
            f"{root}: {counted(len(stopping), 'error')} that would stop a later stage, the first: {first}",
            f"mend what {plan.out / LIST} lists, then {AGAIN}",
        )
    plan.note_done("check", time.monotonic() - began)


def _train(
    run: Path,
    begin: Callable[[Path], Any],
    resume: Callable[[Path, Reporter, Moved], Any],
    stages: Stages,
    moved: Moved,
) -> None:
    """Train in a new folder, or continue there."""
    if (run / "last.pt").is_file():
        resume(run, stages, moved)
    else:
        begin(run)


def _predict(config: Config, out: Path, stages: Stages, images: Path | None) -> dict[str, int]:
    """Masks of new images, and of the validation split where it has masks to score them.

    Returns:
        The number of masks in each folder that was written.
    """
    jobs = _jobs(config, out, stages, images)
    device = prepare_device(config.run)
    network, trained, path = load_network(out / SEGMENTER)
    settings = for_run(trained, trained).model_copy(update={"run": config.run})
    stages.say(predict_words(settings, trained))
    counts: dict[str, int] = {}
    for name, job in jobs.items():
        made = predict_readable(
            network,
            job.records,
            out / name,
            settings,
            stages,
            device=device,
            checkpoint_sha256=file_hash(path),
            data=job.data,
            kind=format_of(job.data, config.data),
            split=job.split,
        )
        counts[name] = made["images"]
    return counts


@dataclass(frozen=True, slots=True)
class Job:
    """Images to segment: where they lie, their split if they are one, and their records."""

    data: Path
    split: str | None
    records: Sequence[Record]


def _jobs(config: Config, out: Path, stages: Stages, images: Path | None) -> dict[str, Job]:
    """What is segmented, by the folder of its masks."""
    data, root, note = config.data, config.data.root, telling(stages.say)
    assert root is not None
    names = list_splits(root, data)
    splits = [open_data(root, split=name, reading=data, need_tags=False, note=note) for name in names]
    listed = {name for tagged in splits for name in tagged.columns.names}
    jobs = {}
    if images is not None:
        jobs[MASKS] = Job(images, None, open_unlabelled(images, data, note=note))
    elif new := [record for record in open_unlabelled(root, data, note=note) if record.name not in listed]:
        jobs[MASKS] = Job(root, None, new)
    else:
        stages.say(f"no new images: each of {root} belongs to a split; wsss predict {out / SEGMENTER} IMAGES -o MASKS")
    validated = read_facts(out / SEGMENTER).get("val_split")
    for tagged in splits:
        if tagged.split == validated and any(tagged.has_truth(record) for record in tagged.records):
            jobs[SCORED] = Job(root, tagged.split, tagged.records)
    return jobs
