"""``metrics.jsonl``: the lines a run writes of itself, in the order of its steps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss.files import disk_errors, write_whole

METRICS = "metrics.jsonl"


def append_row(run: Path, row: Mapping[str, Any]) -> None:
    """Add a line; what is no finite number becomes null.

    Raises:
        DiskError: it cannot be written.
    """
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    path = run / METRICS
    with disk_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain) + "\n")


def drop_rows_after(run: Path, step: int) -> None:
    """Forget the lines that a killed run wrote after its last checkpoint."""
    path = run / METRICS
    if not path.is_file():
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    write_whole(path, "".join(line + "\n" for line in kept))
