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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import timm
import torch

import wsss
from wsss.config import Config, to_yaml
from wsss.data.records import TaggedSet, data_digest
from wsss.errors import DataError, UsageError
from wsss.files import sweep, sync_folder, write_whole
from wsss.outputs.lock import content, refuse_held

FACTS, SETTINGS = "run.json", "config.yaml"
"""Files that a run writes before its first checkpoint, in this order."""
CHANGES = {
    "split": "it began on split {was}",
    "images": "it began with {was} readable images, there are {now}",
    "names_sha256": "these are other images, or in another order",
    "tags_sha256": "the tags have changed",
    "content_sha256": "the image files have changed",
    "data_sha256": "the image files have changed",
}
"""Message for the first of ``data_facts``, in this order, that differs."""
BY_SIZES = "data_sha256"
"""Runs of earlier versions have this hash of names, tags and file sizes instead of "content_sha256"."""


def data_facts(tagged: TaggedSet) -> dict[str, str | int]:
    """Facts that identify a data set, whatever its path.

    There are three SHA-256, each of the classes and the image names in their order: of these alone, with the tags, and
    with the tags and the bytes of the images.
    """
    names, tags = (_hash_of(tagged.classes) for _ in range(2))
    for record in tagged.records:
        names.update(f"\n{record.name}".encode("utf-8", "surrogatepass"))
        tags.update(f"\n{record.name} {record.tags}".encode("utf-8", "surrogatepass"))
    return {
        "split": tagged.split,
        "images": len(tagged),
        "names_sha256": names.hexdigest(),
        "tags_sha256": tags.hexdigest(),
        "content_sha256": data_digest(tagged),
    }


def _hash_of(classes: tuple[str, ...]) -> Any:
    return hashlib.sha256("\n".join(classes).encode())


def _facts_by_sizes(tagged: TaggedSet) -> str:
    """``BY_SIZES`` of a data set."""
    sizes = _hash_of(tagged.classes)
    for record in tagged.records:
        sizes.update(f"\n{record.name} {record.tags} {record.image.stat().st_size}".encode())
    return str(sizes.hexdigest())


def check_same_data(run: Path, train: TaggedSet) -> None:
    """Refuse to resume a run on other data, where its batches would have other images.

    Unreadable images are left out on both sides. A run without ``run.json`` is not checked. For a run of an earlier
    version, file sizes are compared instead of bytes.

    Raises:
        DataError: the training split is not the one that the run began with.
    """
    if not (run / FACTS).is_file():
        return
    began, now = read_facts(run), data_facts(train)
    if BY_SIZES in began:
        now[BY_SIZES] = _facts_by_sizes(train)
    changed = next((key for key in CHANGES if key in began and began[key] != now[key]), None)
    if changed is None:
        return
    what = CHANGES[changed].format(was=began[changed], now=now[changed])
    if changed == BY_SIZES and "tags_sha256" not in began:
        what = "the images or their tags have changed"
    raise DataError(
        f"{run} cannot be resumed on split {train.split} of {train.root}: {what}",
        f"--resume {run}  # once {train.root} is as it was; or train anew, with another -o",
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


def create_run(run: Path, config: Config, train: TaggedSet) -> None:
    """Write ``run.json`` and ``config.yaml``, which are needed to repeat the run; the caller holds the folder's lock.

    Raises:
        UsageError: the folder is in use.
        DiskError: it cannot be written.
    """
    check_free(run)
    sweep(run)
    facts = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": {
            "wsss": wsss.__version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "python": platform.python_version(),
        },
        "classes": list(train.classes),
        **data_facts(train),
    }
    write_whole(run / FACTS, json.dumps(facts, indent=2) + "\n")
    write_whole(run / SETTINGS, to_yaml(config))
    sync_folder(run.parent)


def check_free(run: Path) -> None:
    """Refuse a folder that is not empty, unless it is a run that was killed before its first checkpoint.

    Raises:
        UsageError: it contains other files, or another process holds its lock.
    """
    if run.is_dir():
        refuse_held(run)
    if run.exists() and not (run.is_dir() and (not content(run) or _is_beginning(run))):
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
    return content(run) in ({FACTS}, {FACTS, SETTINGS})
