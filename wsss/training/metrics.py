"""``metrics.jsonl``: one JSON line for each ten steps and one for each validation, in the order of the steps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss.files import disk_errors, write_whole

METRICS = "metrics.jsonl"


def append_row(run: Path, row: Mapping[str, Any]) -> None:
    """Append a line; NaN and infinity become null.

    Raises:
        DiskError: it cannot be written.
    """
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    path = run / METRICS
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain) + "\n")


def drop_rows_after(run: Path, step: int, *, validated: bool = True) -> None:
    """Remove the lines that a killed run wrote after its last checkpoint.

    Args:
        run: the folder.
        step: of the checkpoint; lines of later steps go.
        validated: whether the checkpoint was written after the validation of its step; else the line of that
            validation goes too, since it is repeated.
    """
    path = run / METRICS
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            at = int(row["step"])
        except (ValueError, KeyError, TypeError):  # cut off in the middle, or damaged
            continue
        if at < step or (at == step and (validated or "split" not in row)):
            kept.append(line + "\n")
    write_whole(path, "".join(kept))
