"""A Slurm of one machine for the tests of this folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def slurm() -> Iterator[Any]:
    """`one_machine.OneMachine`, running: one for each process of the tests."""
    spec = importlib.util.spec_from_file_location("one_machine", Path(__file__).with_name("one_machine.py"))
    assert spec is not None
    assert spec.loader is not None
    one_machine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(one_machine)
    missing = one_machine.what_is_missing()
    if missing is not None:
        pytest.skip(missing)
    machine = one_machine.OneMachine()
    try:
        machine.start()
        yield machine
    finally:
        machine.stop()
