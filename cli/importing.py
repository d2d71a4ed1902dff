"""Imports of large libraries, which commands do as late as they can."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heavy_imports() -> Iterator[None]:
    """Import inside this context without the garbage collector.

    torch and timm make a million objects that stay. The collector would walk over them again and again while they
    grow in number, and at every full collection after; so it rests, and then takes them for permanent. Where torch is
    there already nothing happens, so that no other object becomes permanent.
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
        atexit.register(gc.unfreeze)  # some libraries complain of what is left when the program ends
