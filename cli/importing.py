"""Importing large libraries, which commands do inside their functions."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import inside this context without the garbage collector.

    torch and timm create about a million objects that live until the program ends. The garbage collector would visit
    them repeatedly during the import, and at every full collection after it. So it is off during the import, and the
    objects are then frozen (`gc.freeze`). Where torch is imported already nothing happens, so that no other object is
    frozen.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
        atexit.register(gc.unfreeze)  # some libraries warn about objects that are left when the program ends
