"""One whole of the shards of a folder of label maps: what a single process would have written.

The journals of the shards become one, in which each image has one line, and the manifest gets the totals. The label
maps stay where they are. Everything is written before anything is removed, so a merge that was killed is repeated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from wsss.errors import DataError, UsageError
from wsss.files import disk_errors, sweep, whole
from wsss.outputs.folder import totals
from wsss.outputs.journal import JOURNAL, entry_from
from wsss.outputs.lock import FILE as LOCK
from wsss.outputs.lock import locked
from wsss.outputs.manifest import is_complete, read_manifest, settings_digest, write_manifest
from wsss.outputs.shards import FOLDER, ShardRecord, journal_name, names_digest, read_records
from wsss.reporting import Reporter, first_few
from wsss.shard import Shard

Whole = TypeVar("Whole")

AGAIN = "run the missing shards (the same command with their --shard), then wsss merge {out}"
LEAVING_SECONDS = 20.0
"""How long the last of some ranks waits for the others to leave the folder."""
NOT_SETTINGS = ("wsss", "choices", "counts")
"""Keys of a manifest that are no settings."""


def merge_labels(out: Path, reporter: Reporter, *, partial: bool = False) -> dict[str, int]:
    """Make one whole of the shards of a folder.

    Args:
        out: the folder.
        reporter: of remarks.
        partial: also where shards are missing; the folder then counts as unfinished, and can be divided anew.

    Returns:
        Totals, see ``LabelFolder.complete``; of what is done with ``partial``.

    Raises:
        UsageError: there are no shards, or processes write there.
        DataError: shards are missing or unfinished, overlap, or differ in their settings or images.
        DiskError: the folder cannot be written.
    """
    with locked(out, reporter.say):
        records, manifest = read_records(out), read_manifest(out)
        if not records and not is_complete(out):
            raise UsageError(
                f"{out} holds no shards", f"start them: the command that makes {out}, with --shard 0/4 ..."
            )
        if not is_complete(out):
            settings = {key: value for key, value in manifest.items() if key not in NOT_SETTINGS}
            if not partial:
                check_shards(out, records, settings_digest(settings))
            sweep(out)
            counts = _join_journals(out, records, check=not partial)
            first = next(iter(records.values()))
            write_manifest(out, settings, {} if partial else counts, first.choices)
        else:
            counts = manifest["counts"]
        clear_shards(out, records)
    return counts


def merge_last(out: Path, reporter: Reporter, merge: Callable[[Path, Reporter], Whole]) -> Whole | None:
    """Merge the shards that ranks have made, if all are done and none of them is at work any more.

    Each rank calls this at its end, so the last one merges.

    Args:
        out: the folder.
        reporter: of remarks.
        merge: of what is in the folder.

    Returns:
        What ``merge`` gives; None where it is left to another rank.
    """
    records = read_records(out)
    count = next(iter(records)).count if records else 0
    if not is_complete(out) and (len(records) < count or not all(record.done for record in records.values())):
        return None
    deadline = time.monotonic() + LEAVING_SECONDS
    while time.monotonic() < deadline:
        try:
            return merge(out, reporter)
        except UsageError:  # another rank is leaving, or merges
            time.sleep(0.1)
    reporter.say(f"other processes are still at work; when they have ended: wsss merge {out}")
    return None


def check_shards(out: Path, records: Mapping[Shard, ShardRecord], settings: str | None = None) -> None:
    """Check that the shards of a folder are all there, done, and parts of one set.

    Args:
        out: the folder.
        records: of its shards, at least one.
        settings: digest that all must have; by default that of the first one.

    Raises:
        DataError: they are not.
    """
    count = next(iter(records)).count
    every = [Shard(index, count) for index in range(count)]
    missing = [str(shard) for shard in every if shard not in records]
    begun = [str(shard) for shard, record in records.items() if not record.done]
    if missing or begun:
        parts = [f"missing: {first_few(missing, 10)}"] * bool(missing)
        parts += [f"begun and not finished: {first_few(begun, 10)}"] * bool(begun)
        done = f"{count - len(missing) - len(begun)} of {count} shards are done"
        raise DataError(f"{out}: {done}; {'; '.join(parts)}", AGAIN.format(out=out))
    first = next(iter(records.values()))
    for name, key, wanted in (
        ("with other settings", "settings", settings or first.settings),
        ("of other images or tags", "set_sha256", first.set_sha256),
    ):
        other = [str(shard) for shard, record in records.items() if getattr(record, key) != wanted]
        if other:
            raise DataError(
                f"{out}: made {name} than the rest: shard {first_few(other, 10)} of {count}",
                f"run these shards again with the settings and data of the others, then wsss merge {out}",
            )


def clear_shards(out: Path, records: Mapping[Shard, ShardRecord]) -> None:
    """Remove what only the shards needed: their journals first, their records last."""
    for shard in records:
        for path in (out / journal_name(shard), out / f"{LOCK}.{shard.file}", out / FOLDER / f"{shard.file}.json"):
            with disk_errors(path):
                path.unlink(missing_ok=True)
    if (out / FOLDER).is_dir() and not any((out / FOLDER).iterdir()):
        (out / FOLDER).rmdir()


@dataclass(slots=True)
class _Names:
    """Names of images that have a line, and of those that had one in the journal of a shard."""

    written: set[str]
    known: set[str]


def _join_journals(out: Path, records: Mapping[Shard, ShardRecord], *, check: bool) -> dict[str, int]:
    """Write the journal of the whole; returns the totals of the shards."""
    counts: dict[str, int] = {}
    names = _Names(set(), set())
    with whole(out / JOURNAL) as file:
        for shard, record in records.items():
            lines, known = _last_lines(out / journal_name(shard))
            if check:
                _check_share(out, shard, record, lines, names)
            for key, value in totals(entry_from(json.loads(line)) for line in lines.values()).items():
                counts[key] = counts.get(key, 0) + value
            file.write(b"".join(lines.values()))
            names.written.update(lines)
            names.known.update(known)
        _write_older(out / JOURNAL, names.known, file)
    return counts


def _check_share(out: Path, shard: Shard, record: ShardRecord, lines: Mapping[str, bytes], names: _Names) -> None:
    """Refuse a journal that does not have the images of its shard, or images of another shard."""
    twice = [name for name in lines if name in names.written]
    if twice:
        raise DataError(
            f"{out}: shard {shard} overlaps with another: both have {first_few(twice)}",
            f"wsss merge --partial {out}  # keeps what is done; then run all shards again",
        )
    if len(lines) != record.share or names_digest(lines) != record.share_sha256:
        path = out / journal_name(shard)
        raise DataError(
            f"{path}: has {len(lines)} images, not the {record.share} of shard {shard}", AGAIN.format(out=out)
        )


def _last_lines(path: Path) -> tuple[dict[str, bytes], set[str]]:
    """The last line of each image of a journal that is not taken out, and the names of all."""
    lines: dict[str, bytes] = {}
    known: set[str] = set()
    for name, removed, line in _lines(path):
        known.add(name)
        if removed:
            lines.pop(name, None)
        else:
            lines[name] = line
    return lines, known


def _write_older(path: Path, newer: set[str], file: IO[bytes]) -> None:
    """Copy the lines of the journal that there was, except those of images that have newer ones."""
    for name, _, line in _lines(path):
        if name not in newer:
            file.write(line)


def _lines(path: Path) -> Iterator[tuple[str, bool, bytes]]:
    """Name, whether it takes the image out, and text of each line of a journal; broken lines are left out."""
    if not path.is_file():
        return
    with disk_errors(path), path.open("rb") as file:
        for line in file:
            try:
                content = json.loads(line)
                removed = bool(content.get("removed"))
                name = str(content["name"]) if removed else entry_from(content).name
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
            yield name, removed, line if line.endswith(b"\n") else line + b"\n"
