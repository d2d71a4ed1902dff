"""How fast a run trains: a clock that pauses while something else than steps is done.

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
        device: of the steps. CUDA runs asynchronously, so the device is synchronised before the clock is read.

    Attributes:
        steps: since the last reading; the caller counts them.
        seconds: since the last reading, up to the last pause.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps = 0
        self.seconds = 0.0
        self._pauses = 0
        self._since = self._now()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out. Pauses may be nested."""
        now = self._now()
        if not self._pauses:
            self.seconds += now - self._since
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            self._since = self._now()

    def read(self) -> float:
        """Steps a second since the last reading."""
        with self.paused():
            speed = self.steps / self.seconds
            self.steps, self.seconds = 0, 0.0
        return speed

    def restart(self) -> None:
        """Forget all steps and seconds; the time from here on counts."""
        self.steps, self.seconds = 0, 0.0
        self._since = self._now()

    def _now(self) -> float:
        self._wait()
        return time.perf_counter()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
