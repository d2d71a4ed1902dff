"""How fast a run trains: its steps by a clock that stands still while something else is done.

Nothing of it is saved: a resumed run counts from its own first step.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Pace:
    """Steps, and the seconds they took, since the last reading.

    Args:
        device: of the steps; it works behind the host's back, so the clock is read when it has done all it was given.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps = 0
        self.seconds = 0.0
        self._since = self._now()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time inside is not counted."""
        self.seconds += self._now() - self._since
        try:
            yield
        finally:
            self._since = self._now()

    def read(self) -> float:
        """Steps a second; the next reading begins here."""
        with self.paused():
            speed = self.steps / self.seconds
            self.steps, self.seconds = 0, 0.0
        return speed

    def _now(self) -> float:
        self._wait()
        return time.perf_counter()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
