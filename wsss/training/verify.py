"""Whether a run, a folder of label maps or a packed data set is as it was written (``wsss verify``).

A checkpoint keeps no hash of itself: the archive of torch holds a CRC-32 of each of its parts, which is compared, and
the tensors must fit the network of its config.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss.config import plain_settings, resolve
from wsss.data.images import MANIFEST
from wsss.data.photographs import is_ours
from wsss.data.splits import open_training
from wsss.data.writers.webdataset import SUMS
from wsss.errors import DataError, UsageError
from wsss.files import disk_errors
from wsss.models.checkpoint import network_from, read_checkpoint
from wsss.outputs.run import FACTS, PLACES, SETTINGS, check_same_data, read_facts
from wsss.outputs.verify import Finding, Verified, each_folder, is_cut, is_cut_text, verify_labels, verify_sums
from wsss.reporting import Reporter, Silent
from wsss.training.corrected import corrected_from
from wsss.training.metrics import METRICS

LOGGED = 10
"""Steps after which there are metrics."""
RUN_FOLDERS = ("labels", "teacher")
"""Folders of a run that are label maps and a run themselves."""


def verify(folder: Path, reporter: Reporter, *, data: bool = True) -> Verified:
    """Compare a folder with all hashes that it holds.

    Args:
        folder: a run, a folder of label maps, a packed data set, or a folder of such folders (of ``wsss run``).
        reporter: of the progress.
        data: whether the images that it was made from are compared too.

    Raises:
        DataError: it holds no hashes.
        DiskError: a file cannot be read.
    """
    if _holds_hashes(folder):
        return _verify_one(folder, reporter, data=data)
    inner = list(each_folder(folder, _holds_hashes)) if folder.is_dir() else []
    if not inner:
        what = "no run, folder of label maps or packed data set" if folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: {what} with hashes to compare", "wsss verify RUN  # or what make-pseudo wrote")
    found = Verified()
    for path in inner:
        found.add(_verify_one(path, reporter, data=data), path.name)
    return found


def _holds_hashes(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (FACTS, "last.pt", SUMS)) or is_ours(folder / MANIFEST)


def _verify_one(folder: Path, reporter: Reporter, *, data: bool) -> Verified:
    if (folder / SUMS).is_file():
        return verify_sums(folder, reporter)
    if (folder / FACTS).is_file() or (folder / "last.pt").is_file():
        return verify_run(folder, reporter, data=data)
    return verify_labels(folder, reporter, sources=data)


def verify_run(run: Path, reporter: Reporter, *, data: bool = True) -> Verified:
    """Compare a run: the checksums of its checkpoints, what its files say of each other, and the hashes of its data.

    Args:
        run: the folder.
        reporter: of the progress.
        data: whether its data are compared, as ``--resume`` does.

    Raises:
        DiskError: a file cannot be read.
    """
    found = Verified()
    reporter.begin("verifying", 2)
    contents = {}
    for name in ("last.pt", "best.pt"):
        contents[name] = _check_checkpoint(run / name, found)
        reporter.advance()
    last = contents["last.pt"]
    if not (run / "last.pt").is_file():
        found.note(Finding("missing", "last.pt"))
    if last is not None and not (run / "best.pt").is_file() and last.get("training", {}).get("best", 0) > 0:
        found.note(Finding("missing", "best.pt", "a validation chose one"))
    facts = _check_facts(run, last, found)
    if last is not None:
        _check_settings(run, last, found)
    _check_metrics(run, last, found)
    if data and last is not None and facts:
        _check_data(run, last, found)
    for name in RUN_FOLDERS:
        if (run / name / MANIFEST).is_file() or (run / name / FACTS).is_file():
            found.add(_verify_one(run / name, reporter, data=data), name)
    return found


def _check_checkpoint(path: Path, found: Verified) -> Mapping[str, Any] | None:
    """Compare the checksums of a checkpoint; its content where it is right."""
    if not path.is_file():
        return None
    try:
        if is_cut(path):
            found.note(Finding("cut short", path.name))
            return None
        with disk_errors(path), zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad is not None:
            found.note(Finding("changed", path.name, f"the checksum of its part {bad}"))
            return None
        content = read_checkpoint(path)
        network_from(content, path)
    except (DataError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        found.note(Finding("changed", path.name, error.problem if isinstance(error, DataError) else str(error)))
        return None
    found.note(None)
    return content


def _check_facts(run: Path, last: Mapping[str, Any] | None, found: Verified) -> Mapping[str, Any]:
    """Compare ``run.json`` with the checkpoint; its content where it can be read."""
    if not (run / FACTS).is_file():
        found.note(Finding("missing", FACTS))
        return {}
    try:
        facts = read_facts(run)
    except DataError as error:
        found.note(Finding("cut short" if is_cut_text(run / FACTS) else "changed", FACTS, error.problem))
        return {}
    same = last is None or facts.get("classes", last["classes"]) == last["classes"]
    found.note(None if same else Finding("changed", FACTS, "last.pt has other classes: they are of two runs"))
    return facts


def _check_settings(run: Path, last: Mapping[str, Any], found: Verified) -> None:
    """Compare ``config.yaml`` with the checkpoint, whose settings count."""
    path = run / SETTINGS
    if not path.is_file():
        found.note(Finding("missing", SETTINGS))
        return
    ours = network_from(last, run / "last.pt")[1]
    try:
        written = resolve(path, say=lambda text: None)
    except UsageError as error:
        found.note(Finding("cut short" if is_cut_text(path) else "changed", SETTINGS, error.problem))
        return
    theirs, own = (plain_settings(one, but=PLACES) for one in (written, ours))
    differing = next((key for key in theirs if theirs[key] != own[key]), None)
    why = f"{differing}; the run keeps the settings of its checkpoint"
    found.note(None if differing is None else Finding("changed", SETTINGS, why))


def _check_metrics(run: Path, last: Mapping[str, Any] | None, found: Verified) -> None:
    """Read each line of the metrics."""
    path = run / METRICS
    if not path.is_file():
        if last is not None and last.get("training", {}).get("step", 0) >= LOGGED:
            found.note(Finding("missing", METRICS))
        return
    with disk_errors(path):
        content = path.read_bytes()
    broken = 0
    for line in content.splitlines():
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            broken += 1
    fault = Finding("cut short" if not content.endswith(b"\n") else "changed", METRICS, f"{broken} broken lines")
    found.note(fault if broken else None)


def _check_data(run: Path, last: Mapping[str, Any], found: Verified) -> None:
    """Compare the data with the hashes of ``run.json``, as ``--resume`` does: files of the same size and times since
    the last scan are not read again.
    """
    network, config = network_from(last, run / "last.pt")
    task = last.get("task") or {}
    root, layers = config.data.root, {}
    for name in ("labels", "guide"):
        if task.get(name):
            layers[name] = Path(task[name])
    drawn = corrected_from(task.get("corrected"))
    if drawn is not None:
        layers["corrected"] = drawn.folder
    if config.data.saliency is not None and "labels" not in layers:
        layers["saliency"] = config.data.saliency
    gone = [str(path) for path in (root, *layers.values()) if path is not None and not path.is_dir()]
    for path in gone:
        found.note(Finding("missing", path, "its data; --no-data leaves them out"))
    if gone or root is None:
        return
    try:
        train, val = open_training(config, Silent(), network.classes)
        check_same_data(run, train, val, layers)
    except (DataError, UsageError) as error:
        found.note(Finding("changed", str(root), error.problem))
    else:
        found.note(None)
