"""``wsss evaluate --errors``: the table on standard error, the counts in the JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wsss.data.masks import write_mask

Program = Callable[..., Any]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One image of a bee and a fly, six pixels wide, and a partly wrong prediction in ``labels``."""
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((1, 6, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "tags.csv").write_text("image,labels\na.png,bee fly\n")
    write_mask(tmp_path / "masks" / "a.png", np.array([[0, 1, 1, 2, 2, 0]], np.uint8))
    write_mask(tmp_path / "labels" / "a.png", np.array([[1, 1, 0, 0, 1, 0]], np.uint8))
    return tmp_path


def test_errors_by_kind(wsss: Program, data: Path) -> None:
    done = wsss("evaluate", data / "labels", "--data", data, "--errors", "--json")
    assert done.status == 0
    errors = json.loads(done.out)["errors"]
    pixels = {"missed": 1, "partial": 1, "wrong_class": 1, "bleeding": 1, "invented": 0, "ignored": 0}
    assert errors["all_classes"] == {"pixels": pixels, "shares": {kind: n / 4 for kind, n in pixels.items()}}
    fly = errors["per_class"]["fly"]
    assert (fly["pixels"]["missed"], fly["shares"]["wrong_class"]) == (1, 0.5)
    assert set(errors["per_class"]["background"]["shares"].values()) == {None}  # no background pixel is lost
    lines = [" ".join(line.replace("│", " ").split()) for line in done.err.splitlines()]
    assert "lost pixels: 66.67 % of all; the share of each class and of each kind of error, in percent" in lines
    assert "bee 50.00 0.00 50.00 0.00 50.00 0.00 0.00" in lines
    assert "all classes 100.00 25.00 25.00 25.00 25.00 0.00 0.00" in lines


def test_errors_only_where_asked_for(wsss: Program, data: Path) -> None:
    done = wsss("evaluate", data / "labels", "--data", data, "--json")
    assert "errors" not in json.loads(done.out)
    assert "lost pixels" not in done.err


def test_errors_of_many_thresholds_are_refused(wsss: Program, data: Path) -> None:
    done = wsss("evaluate", data / "labels", "--data", data, "--errors", "--scores")
    assert (done.status, "choose one" in done.error()[0]) == (2, True)


def test_shards_and_their_sum(wsss: Program, data: Path) -> None:
    """The second of two shards has no image."""
    command = ("evaluate", data / "labels", "--data", data)
    whole = wsss(*command, "--json")
    lonely = wsss(*command, "--shard", "0/2")
    assert (lonely.status, lonely.error()[1]) == (2, "-o OUT")
    out = data / "counts"
    first = wsss(*command, "--shard", "0/2", "-o", out)
    assert (first.status, first.out.strip()) == (0, str(out))
    assert f"shard 0/2 is done; when all are: wsss merge {out}" in first.err
    early = wsss("merge", out)
    assert (early.status, "missing: 1/2" in early.error()[0]) == (3, True)
    assert json.loads(wsss(*command, "--shard", "1/2", "-o", out, "--json").out) == {"output": str(out), "shard": "1/2"}
    assert wsss("merge", "--partial", out).status == 2
    for _ in range(2):  # to merge again does no harm
        merged = wsss("merge", out, "--json")
        assert json.loads(merged.out) == json.loads(whole.out)
