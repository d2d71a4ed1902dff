"""Run folders: what a training reads, where it writes, and how it is taken up again.

A run holds ``config.yaml`` (resolved), ``run.json`` (versions, command, hashes of its data), ``metrics.jsonl``,
``last.pt`` and, where there is a validation split, ``best.pt``. It is resumable from the first moment: ``last.pt`` is
there before the first step, and a folder that a run was killed in earlier may be begun again.
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
from wsss.data.records import TaggedSet
from wsss.errors import DataError, UsageError
from wsss.files import sweep, sync_folder, write_whole
from wsss.outputs.lock import content, refuse_held

FACTS, SETTINGS = "run.json", "config.yaml"
"""What a run writes before its first checkpoint, in this order."""


CHANGES = {
    "split": "it began on split {was}",
    "images": "it began with {was} readable images, there are {now}",
    "names_sha256": "these are other images, or in another order",
    "tags_sha256": "the tags have changed",
    "data_sha256": "the image files have changed",
}
"""What it means that one of ``data_facts`` differs while those before it do not."""


def data_facts(tagged: TaggedSet) -> dict[str, str | int]:
    """What a set is known again by, wherever it lies.

    Each SHA-256 covers more than the one before: the names in their order, the tags too, the sizes of the files too.
    """
    names, tags, data = (hashlib.sha256("\n".join(tagged.classes).encode()) for _ in range(3))
    for record in tagged.records:
        names.update(f"\n{record.name}".encode())
        tags.update(f"\n{record.name} {record.tags}".encode())
        data.update(f"\n{record.name} {record.tags} {record.image.stat().st_size}".encode())
    return {
        "split": tagged.split,
        "images": len(tagged),
        "names_sha256": names.hexdigest(),
        "tags_sha256": tags.hexdigest(),
        "data_sha256": data.hexdigest(),
    }


def check_same_data(run: Path, train: TaggedSet) -> None:
    """Refuse to go on with a run on other data: its steps would hold other images, and perhaps be more or fewer.

    Images that cannot be read belong to neither set. A run without ``run.json`` is not checked.

    Raises:
        DataError: the training split is not what the run began with.
    """
    if not (run / FACTS).is_file():
        return
    began, now = read_facts(run), data_facts(train)
    changed = next((key for key in CHANGES if began.get(key, now[key]) != now[key]), None)
    if changed is None:
        return
    what = CHANGES[changed].format(was=began[changed], now=now[changed])
    if changed == "data_sha256" and "tags_sha256" not in began:  # an earlier version wrote it
        what = "the images or their tags have changed"
    raise DataError(
        f"{run} cannot go on with split {train.split} of {train.root}: {what}",
        f"--resume {run}  # once {train.root} is as it was; or train anew, with another -o",
    )


def read_facts(run: Path) -> dict[str, Any]:
    """What a run wrote of itself.

    Raises:
        DataError: it is broken.
    """
    path = run / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({error})", f"rm {path}  # the data are not compared then") from error
    if not isinstance(facts, dict):
        raise DataError(f"{path}: does not say how a run was made", f"rm {path}  # the data are not compared then")
    return facts


def create_run(run: Path, config: Config, train: TaggedSet) -> None:
    """Make the folder and write what is needed to repeat the run; the caller has locked it.

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
    """Refuse a folder that holds something already, but for a run that was killed before its first checkpoint.

    Raises:
        UsageError: it does, or another process writes there.
    """
    if run.is_dir():
        refuse_held(run)
    if run.exists() and not (run.is_dir() and (not content(run) or _is_beginning(run))):
        fix = "choose another -o"
        if (run / "last.pt").is_file():
            fix = f"--resume {run}  # goes on with it; or choose another -o"
        raise UsageError(f"{run} is in use: a run needs a folder of its own", fix)


def check_resumable(run: Path) -> None:
    """Tell what can be done with a run that has no checkpoint to go on from, if that is so.

    Raises:
        UsageError: it is a file.
        DataError: it was killed before its first checkpoint.
    """
    if run.is_file():
        raise UsageError(f"--resume {run}: expected the folder of a run, got a file", f"--resume {run.parent}")
    if run.is_dir() and _is_beginning(run):
        command = [str(word) for word in read_facts(run).get("command", [])]
        problem = f"{run} has no last checkpoint: its training stopped before the first one was written"
        raise DataError(problem, shlex.join(["wsss", *command[1:]]))


def _is_beginning(run: Path) -> bool:
    return content(run) in ({FACTS}, {FACTS, SETTINGS})
