"""Shards of a score: each process counts its share of a split, and the sums make the report of the whole.

Counts are whole numbers of pixels and images, so the report is that of a single process, bit for bit. A folder holds a
record of each shard (`wsss.outputs.shards`), and the report of the whole once they are merged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from wsss.data.images import MANIFEST
from wsss.data.records import TaggedSet
from wsss.errors import DataError, UsageError
from wsss.evaluation.report import Report, ScoreReport
from wsss.files import sweep, write_whole
from wsss.inference.evaluate import Counted
from wsss.inference.pairing import share_of
from wsss.outputs.lock import content, locked
from wsss.outputs.manifest import Making, find_predictions, made_in, read_manifest, settings_digest
from wsss.outputs.merge import NOT_SETTINGS, check_shards, clear_shards
from wsss.outputs.shards import FOLDER, Division, held_together, read_records, record_path, write_record
from wsss.reporting import Reporter, first_few
from wsss.shard import Shard

SCORES = "scores.json"
"""The report of the whole."""


def count_shard(
    out: Path,
    shard: Shard,
    predictions: Path,
    tagged: TaggedSet,
    reporter: Reporter,
    count: Callable[[], Counted],
    asked: Mapping[str, Any],
) -> None:
    """Count the share of a shard and write its record.

    Args:
        out: the folder of the records.
        shard: which one.
        predictions: what is scored.
        tagged: the whole split.
        reporter: of remarks.
        count: counts the share.
        asked: the options of the score, which all shards must have.

    Raises:
        UsageError: the folder holds something else, or shards of another number.
        DataError, DiskError: see ``count_labels``; the record cannot be written.
    """
    if out.exists() and (not out.is_dir() or content(out) - {FOLDER, SCORES}):
        raise UsageError(f"{out} is in use: the shards of a score need a folder of their own", "choose another -o")
    division = Division.of(shard, tagged.records, tagged.classes)
    assert division is not None
    names = [record.name for record in share_of(tagged, shard)]
    with held_together(out, shard, reporter):
        digest = settings_digest({**asked, **_identity(predictions)})
        write_record(out, division.record(digest, names))
        counted = count()
        facts = asdict(replace(counted, counts={}))
        counts = {name: array.tolist() for name, array in counted.counts.items()}
        write_record(out, division.record(digest, names, done=True, counts={**facts, "counts": counts}))


def merge_scores(out: Path, reporter: Reporter) -> Report | ScoreReport:
    """The report of all shards of a folder; it is written there as ``scores.json``.

    Raises:
        DataError: shards are missing or unfinished, overlap, differ in settings or images, or hold nothing to score.
    """
    with locked(out, reporter.say):
        records = read_records(out)
        check_shards(out, records)
        again = f"run these shards again, then wsss merge {out}"
        twice = [str(shard) for shard, record in records.items() if record.shard != str(shard)]
        if twice or sum(record.share for record in records.values()) != next(iter(records.values())).images:
            names = first_few(twice or [str(shard) for shard in records], 10)
            raise DataError(f"{out}: shards overlap: {names} hold images of others", again)
        parts = [_counted_from(out, shard, record.counts) for shard, record in records.items()]
        whole = replace(
            parts[0], counts={name: np.sum([part.counts[name] for part in parts], axis=0) for name in parts[0].counts}
        )
        images, _, missing = whole.counts["images"].tolist()
        if missing == images:
            what = "no mask to score with" if images == 0 else "no prediction of any image with a mask"
            raise DataError(f"{out}: there is {what} in split '{whole.split}'", f"ls {whole.root}")
        report = whole.report()
        sweep(out)
        write_whole(out / SCORES, json.dumps(report.to_json(), indent=2) + "\n")
        clear_shards(out, records)
    return report


def holds_scores(out: Path) -> bool:
    """Whether a folder is one of the shards of a score, or of their sum."""
    first = next(iter(sorted((out / FOLDER).glob("*-of-*.json"))), None)
    return (out / SCORES).is_file() or (first is not None and not (out / MANIFEST).is_file())


def _identity(predictions: Path) -> dict[str, Any]:
    """What tells one folder of predictions from another."""
    found = find_predictions(predictions)
    root = made_in(found.labels)
    settings = read_manifest(root) if (root / MANIFEST).is_file() else {}
    return {
        "predictions": str(found.labels.resolve()),
        "settings": {key: value for key, value in settings.items() if key not in NOT_SETTINGS},
    }


def _counted_from(out: Path, shard: Shard, content: Mapping[str, Any]) -> Counted:
    """What a record holds of its share."""
    try:
        counts = {name: np.array(values, dtype=np.int64) for name, values in content["counts"].items()}
        return Counted(
            **{
                **content,
                "classes": tuple(content["classes"]),
                "thresholds": tuple(content["thresholds"]),
                "making": TypeAdapter(Making).validate_python(content["making"]),
                "counts": counts,
            }
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        path = record_path(out, shard)
        raise DataError(f"{path}: holds no counts ({error})", f"rm {path}, then run shard {shard} again") from error
