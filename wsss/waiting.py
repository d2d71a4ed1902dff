"""How the threads of torch wait for each other; to be set before torch is loaded.

Torch's OpenMP threads wait for the next piece of work by spinning for up to milliseconds. Beside another busy process
they so take the cores from the very thread that they wait for: a training step on two cores beside one other process
falls to a third. With ``SPINS`` they spin for a moment and then sleep. benchmarks/threads.py measures both.

Source: GNU libgomp's manual on ``GOMP_SPINCOUNT`` and ``OMP_WAIT_POLICY``
(https://gcc.gnu.org/onlinedocs/libgomp/Environment-Variables.html).
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = 1000
"""Turns of the loop in which a thread waits before it sleeps: tens of microseconds. Fewer cost speed where nothing else
runs, more cost it beside other processes (benchmarks/RESULTS.md)."""
VARIABLE = "GOMP_SPINCOUNT"
OTHERS = ("OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_CPU_AFFINITY")
"""Variables by which a user has chosen how threads wait."""


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait spin briefly, unless the user has chosen how they wait.

    It has an effect only before torch is loaded, and on the processes that this one starts.
    """
    if not any(environment.get(name) for name in (VARIABLE, *OTHERS)):
        environment[VARIABLE] = str(SPINS)
