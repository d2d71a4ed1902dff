"""Run folders: creating one, and checking that a training may write to it or be resumed from it.

A run folder contains ``config.yaml`` (resolved), ``run.json`` (versions, command, hashes of its data),
``metrics.jsonl``, ``last.pt`` and, if there is a validation split, ``best.pt``. The first ``last.pt`` is written before
the first step, and from then on the run can be resumed. The folder of a run that was killed before that may be used for
a new run.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timm
import torch

import wsss
from wsss.config import Config, plain_settings, resolve, to_yaml
from wsss.data.layers import layer_digest
from wsss.data.memory import MEMORY, is_memory
from wsss.data.records import TaggedSet, data_digest
from wsss.errors import DataError, UsageError
from wsss.files import sweep, sync_folder, write_whole
from wsss.outputs.lock import content, refuse_held
from wsss.reporting import Reporter, first_few

FACTS, SETTINGS = "run.json", "config.yaml"
"""Files that a run writes before its first checkpoint, in this order."""
CHANGES = {
    "split": "it began on split {was}",
    "images": "it began with {was} readable images, there are {now}",
    "names_sha256": "these are other images, or in another order",
    "tags_sha256": "the tags have changed",
    "content_sha256": "the image files have changed",
    "data_sha256": "the image files have changed",
    "labels_sha256": "the label maps have changed",
    "saliency_sha256": "the saliency maps have changed",
    "corrected_sha256": "the corrected masks have changed",
    "guide_sha256": "the label maps of the guide have changed",
    "val_split": "its validation split was {was}, now it is {now}",
    "val_sha256": "the images or tags of split {val} have changed",
}
"""Message for the first of ``data_facts``, in this order, that differs."""
PLACES = ("data.root", "data.tags", "data.saliency")
"""Keys that say where the data of a run lie."""
BY_SIZES = "data_sha256"
"""Runs of earlier versions have this hash of names, tags and file sizes instead of "content_sha256"."""


def data_facts(
    tagged: TaggedSet, val: TaggedSet | None = None, layers: Mapping[str, Path] | None = None
) -> dict[str, Any]:
    """Facts that identify the data of a training, whatever their paths.

    Of the training split there are three SHA-256, each of the classes and the image names in their order: of these
    alone, with the tags, and with the tags and the bytes of the images. Of the validation split there is the last.

    Args:
        tagged: the training split.
        val: the validation split, or None.
        layers: "labels", "saliency", "corrected" or "guide" and their folder: the bytes of NAME.png of each image, or
            of those images that are corrected.
    """
    names, tags = (_hash_of(tagged.classes) for _ in range(2))
    for record in tagged.records:
        names.update(f"\n{record.name}".encode("utf-8", "surrogatepass"))
        unknown = f" ?{record.unknown}" if record.unknown else ""
        tags.update(f"\n{record.name} {record.tags}{unknown}".encode("utf-8", "surrogatepass"))
    return {
        "split": tagged.split,
        "images": len(tagged),
        "names_sha256": names.hexdigest(),
        "tags_sha256": tags.hexdigest(),
        "content_sha256": data_digest(tagged),
        "val_split": None if val is None else val.split,
        "val_sha256": None if val is None else data_digest(val),
        **{
            f"{name}_sha256": layer_digest(folder, tagged, some=name == "corrected")
            for name, folder in (layers or {}).items()
        },
    }


def _hash_of(classes: tuple[str, ...]) -> Any:
    return hashlib.sha256("\n".join(classes).encode())


def _facts_by_sizes(tagged: TaggedSet) -> str:
    """``BY_SIZES`` of a data set."""
    sizes = _hash_of(tagged.classes)
    for record in tagged.records:
        sizes.update(f"\n{record.name} {record.tags} {record.unknown or ''}{record.stamp().length}".encode())
    return str(sizes.hexdigest())


def check_same_data(
    run: Path,
    train: TaggedSet,
    val: TaggedSet | None = None,
    layers: Mapping[str, Path] | None = None,
    *,
    moved: bool = False,
) -> None:
    """Refuse to resume a run on other data, where its batches would have other images.

    Unreadable images are left out on both sides. A run without ``run.json`` is not checked. For a run of an earlier
    version, file sizes are compared instead of bytes, and what it did not write down is not compared.

    Args:
        run: its folder.
        train: its training split.
        val: its validation split, or None.
        layers: see ``data_facts``.
        moved: whether the data lie elsewhere than they did. Then bytes must be compared: a run that did not write down
            their hashes is refused.

    Raises:
        DataError: the data are not those that the run began with.
    """
    began = read_facts(run) if (run / FACTS).is_file() else {}
    if moved:
        _check_comparable(run, began, layers or {})
    if not began:
        return
    now = data_facts(train, val, layers)
    if BY_SIZES in began:
        now[BY_SIZES] = _facts_by_sizes(train)
    changed = next((key for key in CHANGES if key in began and began[key] != now.get(key)), None)
    if changed is None:
        return
    was, is_now = ("none" if value is None else value for value in (began[changed], now.get(changed)))
    what = CHANGES[changed].format(was=was, now=is_now, val=began.get("val_split"))
    if changed == BY_SIZES and "tags_sha256" not in began:
        what = "the images or their tags have changed"
    fix = f"--resume {run}  # once {train.root} is as it was; or train anew, with another -o"
    if moved:
        fix = f"--resume {run} --data DIR  # with the data that it began with; or train anew, with another -o"
    raise DataError(f"{run} cannot be resumed on split {train.split} of {train.root}: {what}", fix)


def _check_comparable(run: Path, began: Mapping[str, Any], layers: Mapping[str, Path]) -> None:
    """Refuse data elsewhere where the run did not write down the hashes of their bytes."""
    missing = [key for key in ("content_sha256", *(f"{name}_sha256" for name in layers)) if key not in began]
    if missing:
        what = f"its {FACTS} has no {missing[0]}" if began else f"it has no {FACTS}"
        raise DataError(
            f"{run} cannot be resumed on data elsewhere: {what}, so the files cannot be compared",
            f"--resume {run}  # with the data where they were; or train anew, with another -o",
        )


def read_facts(run: Path) -> dict[str, Any]:
    """The content of ``run.json``.

    Raises:
        DataError: it cannot be read or is not a JSON object.
    """
    path = run / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error})", f"rm {path}  # the data are then not compared") from error
    if not isinstance(facts, dict):
        raise DataError(f"{path}: is no JSON object", f"rm {path}  # the data are then not compared")
    return facts


def create_run(
    run: Path,
    config: Config,
    train: TaggedSet,
    val: TaggedSet | None,
    choices: Mapping[str, Any],
    *,
    asked: Mapping[str, Any],
    layers: Mapping[str, Path] | None = None,
) -> None:
    """Write ``run.json`` and ``config.yaml``, which are needed to repeat the run; the caller holds the folder's lock.

    Args:
        run: the folder.
        config: the settings.
        train: the training split.
        val: the validation split, or None.
        choices: what the command chose by itself (`choices.py`).
        asked: what it was asked for (`asked.py`).
        layers: see ``data_facts``.

    Raises:
        UsageError: the folder is in use.
        DiskError: it cannot be written.
    """
    check_free(run)
    sweep(run)
    facts = {
        "started": _now(),
        "command": sys.argv,
        "asked": dict(asked),
        "versions": {
            "wsss": wsss.__version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "python": platform.python_version(),
        },
        "classes": list(train.classes),
        **data_facts(train, val, layers),
        "choices": dict(choices),
    }
    write_whole(run / FACTS, json.dumps(facts, indent=2) + "\n")
    write_whole(run / SETTINGS, to_yaml(config))
    sync_folder(run.parent)


def note_resumed(run: Path, config: Config, choices: Mapping[str, Any], *, moved: bool) -> None:
    """Add a resumption to ``run.json`` where the choices are others than before; write the config anew after a move.

    Raises:
        DiskError: a file cannot be written.
    """
    if (run / FACTS).is_file():
        facts = read_facts(run)
        resumed = facts.get("resumed", [])
        if choices != (resumed[-1] if resumed else facts).get("choices"):
            facts["resumed"] = [*resumed, {"at": _now(), "command": sys.argv, "choices": dict(choices)}]
            write_whole(run / FACTS, json.dumps(facts, indent=2) + "\n")
    if moved:
        write_whole(run / SETTINGS, to_yaml(config))


def remark_on_settings(run: Path, config: Config, reporter: Reporter) -> None:
    """Say where ``config.yaml`` was changed: a resumed run keeps the config of its checkpoint.

    The places of the data are not compared; ``--data`` changes them.

    Args:
        run: its folder.
        config: that of its checkpoint.
        reporter: of the remark.
    """
    path = run / SETTINGS
    if not path.is_file():
        return
    keeps = f"the run keeps the settings of its checkpoint; train anew, with -c {path}, for others"
    try:
        written = resolve(path, say=lambda text: None)
    except UsageError as error:
        reporter.say(f"{error.problem}; {keeps}")
        return
    theirs, ours = (plain_settings(one, but=PLACES) for one in (written, config))
    differing = [f"{key} {value}, not {ours[key]}" for key, value in theirs.items() if value != ours[key]]
    if differing:
        reporter.say(f"{path} was changed ({first_few(differing)}); {keeps}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_free(run: Path) -> None:
    """Refuse a folder that is not empty, unless it is a run that was killed before its first checkpoint.

    Raises:
        UsageError: it contains other files, or another process holds its lock.
    """
    if run.is_dir():
        refuse_held(run)
    if run.exists() and not (run.is_dir() and (not _without_memory(run) or _is_beginning(run))):
        fix = "choose another -o"
        if (run / "last.pt").is_file():
            fix = f"--resume {run}  # to continue it; or choose another -o"
        raise UsageError(f"{run} is in use: a run needs a folder of its own", fix)


def check_resumable(run: Path) -> None:
    """Refuse to resume a path that is no resumable run; the error names the command to run instead.

    Raises:
        UsageError: the path is a file.
        DataError: the run was killed before its first checkpoint.
    """
    if run.is_file():
        raise UsageError(f"--resume {run}: expected the folder of a run, got a file", f"--resume {run.parent}")
    if run.is_dir() and _is_beginning(run):
        command = [str(word) for word in read_facts(run).get("command", [])]
        problem = f"{run} has no last checkpoint: its training stopped before the first one was written"
        raise DataError(problem, shlex.join(["wsss", *command[1:]]))


def _is_beginning(run: Path) -> bool:
    """Whether a folder holds only the files that a run writes before its first checkpoint."""
    return _without_memory(run) in ({FACTS}, {FACTS, SETTINGS})


def _without_memory(run: Path) -> set[str]:
    """Names in the folder of a run, without the memory that `wsss.data.memory` wrote there."""
    return content(run) - ({MEMORY} if is_memory(run / MEMORY) else set())
