"""A fixture that runs the program in real processes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("runs.py")


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`runs.Warm`: starts ``wsss`` by forking a process that has imported it."""
    if sys.platform == "win32":
        pytest.skip("there is no fork")
    spec = importlib.util.spec_from_file_location("runs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    runs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runs)
    programs = runs.Warm(tmp_path_factory.mktemp("logs"))
    yield programs
    programs.close()
