"""The figures of every stage equal those in golden.json, which `make.py` in this folder has written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("golden_make", HERE / "make.py")
assert spec is not None
assert spec.loader is not None
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
EXPECTED: dict[str, Any] = json.loads((HERE / "golden.json").read_text())


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    figures: dict[str, Any] = make.figures()
    return figures


@pytest.mark.parametrize("name", EXPECTED)
def test_golden(name: str, found: dict[str, Any]) -> None:
    if name.startswith("pixels"):
        assert sum(abs(a - b) for a, b in zip(found[name], EXPECTED[name], strict=True)) <= 6
    elif name.startswith("label"):
        assert found[name] == EXPECTED[name]
    else:
        assert found[name] == pytest.approx(EXPECTED[name], rel=2e-4, abs=1e-9)


def test_nothing_is_left_out(found: dict[str, Any]) -> None:
    assert found.keys() == EXPECTED.keys()
