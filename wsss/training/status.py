"""How far a run or a folder of label maps has come, read from its files; for scripts that decide whether to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.data.images import MANIFEST
from wsss.errors import DataError
from wsss.files import disk_errors
from wsss.models.checkpoint import part_of, read_checkpoint
from wsss.outputs.journal import JOURNAL, read_journals
from wsss.outputs.manifest import is_complete, read_manifest
from wsss.outputs.run import FACTS, read_facts
from wsss.outputs.shards import journal_name, read_records
from wsss.shard import Shard
from wsss.training.metrics import METRICS
from wsss.training.rounds import LABELS, TEACHER


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part of the work.

    Attributes:
        what: is counted ("steps", "labels", "shard 0/4").
        done: so many.
        total: of so many; None where it is not known yet.
        images_per_second: of a training, at the last line of its metrics; None where there is none.
        seconds_left: of this part at that speed.
    """

    what: str
    done: int
    total: int | None
    images_per_second: float | None = None
    seconds_left: float | None = None

    def __str__(self) -> str:
        return f"{self.what} {self.done}/{'?' if self.total is None else self.total}"


@dataclass(frozen=True, slots=True)
class Status:
    """How far the work has come.

    Attributes:
        parts: in the order in which they are done.
        missing: what is still to be done, in words; nothing where all is.
    """

    parts: tuple[Part, ...]
    missing: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


def status_of(path: Path, shard: Shard | None = None) -> Status:
    """The status of a run, or of a folder of make-pseudo or predict.

    Args:
        path: the folder.
        shard: of such a folder, the only one that counts.

    Raises:
        DataError: it is neither, or it was begun by a version that did not write down what is needed.
    """
    if (path / FACTS).is_file():
        return _status_of_run(path)
    if (path / MANIFEST).is_file():
        return _status_of_labels(path, shard)
    what = "is neither a run nor a folder of make-pseudo or predict" if path.is_dir() else "no such run or folder"
    raise DataError(f"{path}: {what}", "start it: wsss train-cls --data DIR -o RUN")


def _status_of_run(run: Path, prefix: str = "") -> Status:
    choices = read_facts(run).get("choices", {})
    if "steps" not in choices:
        raise DataError(f"{run}: an earlier version began it and did not write down its steps", f"--resume {run}")
    total = int(choices["steps"])
    if not (run / "last.pt").is_file():
        return Status((Part(what=f"{prefix}steps", done=0, total=total),), (f"{prefix}first checkpoint",))
    content = read_checkpoint(run / "last.pt", numbers=False)
    training, task = part_of(content, "training", run), content.get("task") or {}
    steps = _steps(run, prefix, int(training["step"]), total, content, int(choices["images"]))
    missing = [f"{prefix}{total - steps.done} of {total} steps"] * (steps.done < total)
    if choices.get("finetune") in ("head", "top") and "head" not in task:
        missing.insert(0, f"{prefix}head")
    elif choices.get("no_validation") is None and training.get("validated", steps.done) < steps.done == total:
        missing.append(f"{prefix}last validation")
    if steps.done or not task.get("taught"):
        return Status((steps,), tuple(missing))
    earlier = _earlier_rounds(run, prefix, int(choices["images"]))
    return Status((*earlier.parts, steps), (*earlier.missing, *missing))


def _steps(run: Path, prefix: str, step: int, total: int, content: Mapping[str, Any], images: int) -> Part:
    """The steps of a training and its speed."""
    section = content["config"]["segment" if content["kind"] == "segmentation" else "classify"]
    speed = _last_speed(run)
    left = None if speed is None else (total - step) * min(section["batch_size"], images) / speed
    return Part(what=f"{prefix}steps", done=step, total=total, images_per_second=speed, seconds_left=left)


def _earlier_rounds(run: Path, prefix: str, images: int) -> Status:
    """The teacher of a run that has not begun its own steps, and the teacher's labels."""
    teacher, labels = run / TEACHER, run / LABELS
    begun = (teacher / FACTS).is_file()
    theirs = _status_of_run(teacher, f"{prefix}teacher's ") if begun else Status((), (f"{prefix}teacher",))
    ours = Status((Part(what=f"{prefix}labels", done=0, total=images),), (f"{prefix}labels",))
    if (labels / MANIFEST).is_file():
        ours = _status_of_labels(labels, None, prefix)
    return Status((*theirs.parts, *ours.parts), (*theirs.missing, *ours.missing))


def _status_of_labels(out: Path, shard: Shard | None, prefix: str = "") -> Status:
    if is_complete(out):
        images = int(read_manifest(out)["counts"]["images"])
        return Status((Part(what=f"{prefix}labels", done=images, total=images),), ())
    records = {one: record for one, record in read_records(out).items() if shard in (None, one)}
    if shard is not None or records:
        return _status_of_shards(out, shard, {one: (record.share, record.done) for one, record in records.items()})
    total = read_manifest(out).get("choices", {}).get("images")
    done = len(read_journals([out / JOURNAL]))
    return Status((Part(what=f"{prefix}labels", done=done, total=total),), (f"{prefix}labels",))


def _status_of_shards(out: Path, shard: Shard | None, found: Mapping[Shard, tuple[int, bool]]) -> Status:
    """The status of one or all shards of a folder; images of each share, and whether it is complete."""
    count = next(iter(found)).count if shard is None else shard.count
    parts, missing = [], []
    for one in [Shard(index, count) for index in range(count)] if shard is None else [shard]:
        share, done = found.get(one, (None, False))
        made = len(read_journals([out / journal_name(one)]))
        parts.append(Part(what=f"shard {one}", done=made, total=share))
        if not done:
            missing.append(f"shard {one}")
    if shard is None and not missing:
        missing.append("merge")
    return Status(tuple(parts), tuple(missing))


def _last_speed(run: Path) -> float | None:
    """Images a second at the last line of the metrics that has them; of all processes together."""
    if not (run / METRICS).is_file():
        return None
    with disk_errors(run / METRICS):
        lines = (run / METRICS).read_text(encoding="utf-8", errors="replace").splitlines()
    for line in reversed(lines):
        try:
            speed = json.loads(line).get("images_per_second")
        except (ValueError, AttributeError, RecursionError):  # a line that was cut short
            continue
        if speed:
            return float(speed)
    return None
