"""The shards of a folder that several processes write: ``shards/I-of-N.json`` has a record of each.

A record is written when its process begins, and again, with ``done``, when its share is complete; `merge.py` makes one
whole of them. Shards of one N only may lie in a folder, and nothing else may write there until they are merged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wsss import __version__
from wsss.data.records import Record, Records, counted
from wsss.errors import DataError, UsageError
from wsss.files import sync_folder, write_whole
from wsss.outputs.lock import FILE as LOCK
from wsss.outputs.lock import locked
from wsss.outputs.manifest import is_complete
from wsss.reporting import Reporter, first_few
from wsss.shard import Shard, parse_shard

FOLDER = "shards"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardRecord:
    """What is known of one shard.

    Attributes:
        shard: "I/N".
        settings: digest of the settings (`settings_digest`).
        images: of the whole set.
        set_sha256: of the whole set (`set_digest`).
        share: images of this shard.
        share_sha256: of their names (`names_digest`).
        done: whether its share is complete.
        choices: what its process chose by itself (`choices.py`).
        counts: what it counted, where it makes no files but figures.
        wsss: version of this program.
    """

    shard: str
    settings: str
    images: int
    set_sha256: str
    share: int
    share_sha256: str
    done: bool = False
    choices: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    wsss: str = __version__


@dataclass(frozen=True, slots=True)
class Division:
    """The shard that a process makes, of a whole set.

    Attributes:
        shard: which one.
        images: of the whole set.
        set_sha256: of the whole set (`set_digest`).
    """

    shard: Shard
    images: int
    set_sha256: str

    @classmethod
    def of(cls, shard: Shard | None, records: Sequence[Record], classes: Sequence[str]) -> Division | None:
        """Of a shard of a set; None where there is no shard."""
        return None if shard is None else cls(shard, len(records), set_digest(records, classes))

    def record(self, settings: str, names: Sequence[str], **more: Any) -> ShardRecord:
        """The record of the shard: digest of its settings, names of the images of its share, other fields."""
        return ShardRecord(
            shard=str(self.shard),
            settings=settings,
            images=self.images,
            set_sha256=self.set_sha256,
            share=len(names),
            share_sha256=names_digest(names),
            **more,
        )


def write_record(out: Path, record: ShardRecord) -> None:
    """Write the record of a shard."""
    path = record_path(out, parse_shard(record.shard))
    write_whole(path, json.dumps(asdict(record), indent=2) + "\n")
    sync_folder(path.parent)


def record_path(out: Path, shard: Shard) -> Path:
    """Where the record of a shard lies."""
    return out / FOLDER / f"{shard.file}.json"


def read_records(out: Path) -> dict[Shard, ShardRecord]:
    """The records of a folder.

    Raises:
        DataError: one cannot be read.
    """
    records = {}
    for path in sorted((out / FOLDER).glob("*-of-*.json")):
        try:
            with suppress(FileNotFoundError):  # another process has merged it
                records[parse_shard(path.stem)] = ShardRecord(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, RecursionError, UsageError) as error:
            raise DataError(f"{path}: cannot be read ({error})", f"rm {path}, then run this shard again") from error
    return dict(sorted(records.items()))


def journal_name(shard: Shard) -> str:
    """Name of the journal of a shard."""
    return f"journal.{shard.file}.jsonl"


@contextmanager
def held_together(out: Path, shard: Shard | None, reporter: Reporter) -> Iterator[None]:
    """Hold a folder: alone, or with the processes of other shards.

    Raises:
        UsageError: other processes hold it, or shards lie there that must be merged first.
        DiskError: it cannot be written.
    """
    with locked(out, reporter.say, together=shard is not None):
        refuse_unmerged(out, shard)
        if shard is None:
            yield
            return
        with locked(out, reporter.say, name=f"{LOCK}.{shard.file}"):
            yield


def refuse_unmerged(out: Path, shard: Shard | None = None) -> None:
    """Refuse a folder that holds the shards of a division into another number of them.

    Args:
        out: the folder.
        shard: the one to be made; None for the whole.

    Raises:
        UsageError: it does.
    """
    others = [one for one in found_shards(out) if shard is None or one.count != shard.count]
    if others:
        asked = "one process" if shard is None else counted(shard.count, "shard")
        raise UsageError(
            f"{out} holds {first_few([str(one) for one in others])} of {counted(others[0].count, 'shard')} that are not"
            f" merged, now it is to be made by {asked}",
            f"wsss merge {out}  # where all are done; --partial keeps what is done and lets it be divided anew",
        )


def refuse_unfinished(out: Path) -> None:
    """Refuse to read a folder whose shards are not merged: label maps may be missing.

    Raises:
        DataError: there are such shards.
    """
    shards = found_shards(out)
    if shards and not is_complete(out):
        raise DataError(f"{out}: its {counted(shards[0].count, 'shard')} are not merged", f"wsss merge {out}")


def found_shards(out: Path) -> list[Shard]:
    """The shards that have a record in a folder."""
    return sorted(parse_shard(path.stem) for path in (out / FOLDER).glob("*-of-*.json"))


def set_digest(records: Sequence[Record], classes: Sequence[str]) -> str:
    """SHA-256, hexadecimal, of the classes and of the names, tags and bytes of the images of a set, in their order."""
    columns = Records.of(records)
    names = columns.names.take(np.arange(len(columns)))  # in a block of their own, one after the other
    digest = hashlib.sha256("\n".join(classes).encode("utf-8", "surrogatepass"))
    for array in (
        *(names.blob, names.ends_N, columns.tags.values, columns.tags.ends_N),
        *(columns.unknown.values, columns.unknown.ends_N, columns.digest_ND),
    ):
        digest.update(str(array.dtype.newbyteorder("<")).encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def names_digest(names: Iterable[str]) -> str:
    """SHA-256, hexadecimal, of names, whatever their order."""
    return hashlib.sha256("\n".join(sorted(names)).encode("utf-8", "surrogatepass")).hexdigest()
