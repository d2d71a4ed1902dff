"""``wsss review``: paths on standard output, or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wsss.data.masks import IGNORE_INDEX, write_mask


def test_review(wsss: Callable[..., Any], tmp_path: Path) -> None:
    for name, value in (("sure", 0), ("doubtful", IGNORE_INDEX)):
        write_mask(tmp_path / "labels" / f"{name}.png", np.full((2, 2), value, np.uint8))
    labels = tmp_path / "labels"
    assert wsss("review", tmp_path).out.split() == [str(labels / "doubtful.png"), str(labels / "sure.png")]
    (first,) = json.loads(wsss("review", tmp_path, "--first", "1", "--json").out)
    assert (first["name"], first["doubt"], first["why"], first["image"]) == ("doubtful", 1.0, "ignored", None)
    assert wsss("review", tmp_path / "gone").status == 3
