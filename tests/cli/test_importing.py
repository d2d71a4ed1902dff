"""``heavy_imports``: the garbage collector is off during the import, and only objects of the import are frozen."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, sys
from wsss.cli.importing import heavy_imports

try:
    with heavy_imports():
        assert not gc.isenabled()
        {inside}
except ImportError:
    pass
assert gc.isenabled()
first = gc.get_freeze_count()
assert first > 0
sys.modules.setdefault("torch", sys)
with heavy_imports():
    assert gc.isenabled()
assert gc.get_freeze_count() == first
"""


def run(inside: str) -> None:
    script = SCRIPT.format(inside=inside)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_collector_is_off_inside_and_on_after() -> None:
    run("import decimal")


def test_the_collector_is_on_after_a_failure() -> None:
    run("import a_package_that_is_not_there")
