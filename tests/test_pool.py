"""Order, bounds, errors and ends of the pool and of its processes."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, cast

import pytest

from wsss.errors import MachineError
from wsss.pool import MOST_PIXELS, WRITERS, Job, Pool
from wsss.processes import Processes

PATIENCE = 20.0
"""Seconds after which a test that waits has failed."""

Jobs = list[Job[Any]]


def helpers(count: int) -> Processes[..., Any]:
    """Processes that call whatever function comes first."""
    return Processes(cast(Any, operator.call), count)


def gone(pid: int) -> bool:
    """Whether a child has ended and been waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("count", [0, 1, 2])
def test_any_number_of_processes_gives_the_same_results(count: int) -> None:
    with Pool(count) as pool, Processes(operator.mul, count) as processes:
        jobs = (Job(str(i), partial(processes.call, str(i), i, i)) for i in range(40))
        assert list(pool.run(jobs)) == [i * i for i in range(40)]


def test_results_come_in_the_order_of_the_jobs() -> None:
    """The first job ends after the second."""
    second_is_done = threading.Event()

    def first() -> int:
        assert second_is_done.wait(PATIENCE)
        return 1

    def second() -> int:
        second_is_done.set()
        return 2

    with Pool() as pool:
        assert list(pool.run([Job("first", first), Job("second", second)])) == [1, 2]


def test_jobs_in_flight_are_bounded() -> None:
    """Every job waits until no more are taken, and none waits in vain."""
    taken, full = 0, threading.Event()

    def jobs(pool: Pool) -> Iterator[Job[bool]]:
        nonlocal taken
        for i in range(20):
            taken += 1
            if taken == pool.in_flight:
                full.set()
            yield Job(str(i), partial(full.wait, PATIENCE))

    with Pool() as pool:
        for done, waited in enumerate(pool.run(jobs(pool))):
            assert waited
            assert done < taken <= done + pool.in_flight
    assert taken == 20


def test_jobs_of_many_pixels_are_held_one_by_one() -> None:
    """Two of half the bound fit together, a third waits; one above the bound runs alone."""
    held: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def jobs() -> Iterator[Job[None]]:
        for pixels in [MOST_PIXELS // 2] * 6 + [2 * MOST_PIXELS] + [MOST_PIXELS // 2] * 3:
            with lock:
                held.append(pixels)  # the job exists from here on
                most.append(sum(held))
            yield Job("photo", partial(release, pixels), pixels)

    def release(pixels: int) -> None:
        time.sleep(0.01)
        with lock:
            held.remove(pixels)

    with Pool() as pool:
        assert len(list(pool.run(jobs()))) == 10
    assert not held
    assert max(most) <= 2 * MOST_PIXELS + MOST_PIXELS // 2 * 2  # what is held, and the next job


def test_an_error_names_the_image_and_cancels_the_rest() -> None:
    """What has begun ends; of the other jobs, which would all have begun then, none does."""
    begun: list[int] = []
    taken, release = threading.Event(), threading.Event()

    def fail() -> None:
        assert taken.wait(PATIENCE)
        threading.Timer(0.5, release.set).start()
        raise ValueError("too dark")

    def wait(i: int) -> None:
        begun.append(i)
        assert release.wait(PATIENCE)

    def jobs(others: int) -> Iterator[Job[None]]:
        yield Job("moth", fail)
        for i in range(others):
            if i == others - 1:
                taken.set()
            yield Job(str(i), partial(wait, i))

    with pytest.raises(ValueError, match="too dark") as caught, Pool() as pool:
        list(pool.run(jobs(pool.in_flight - 1)))
    assert caught.value.__notes__ == ["while working on moth"]
    assert 1 <= len(begun) <= WRITERS


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_in_a_process_keeps_its_traceback(count: int) -> None:
    with Pool(count) as pool, helpers(count) as processes:
        pids = {processes.call("pid", os.getpid) for _ in range(count)}
        jobs = [Job("bee", partial(processes.call, "bee", operator.truediv, 1, 0))]
        with pytest.raises(RuntimeError, match=r"(?s)^bee: call failed .*\bTraceback .*ZeroDivisionError"):
            list(pool.run(jobs))
        assert processes.call("after", operator.add, 1, 2) == 3
    assert all(map(gone, pids))


def test_a_process_that_dies() -> None:
    """The image that it died of is told, whichever meets the dead process later."""
    with Pool(2) as pool, helpers(2) as processes:
        pids = [worker.pid for worker in processes._workers]
        jobs: Jobs = [Job("fly", partial(processes.call, "fly", os._exit, 3))]
        jobs += [Job(str(i), partial(processes.call, str(i), os.getpid)) for i in range(9)]
        with pytest.raises(MachineError, match=r"^fly: the process of call left with status 3; perhaps") as caught:
            list(pool.run(jobs))
        assert caught.value.exit_status == 4
        assert "--workers 1" in caught.value.fix
        with pytest.raises(MachineError, match=r"^fly: "):
            [processes.call("later", os.getpid) for _ in pids]
    assert all(map(gone, pids))


def test_a_process_that_is_killed() -> None:
    with helpers(1) as processes:
        with pytest.raises(MachineError) as caught:
            processes.call("wasp", signal.raise_signal, signal.SIGKILL)
        assert caught.value.problem.startswith("wasp: the process of call was killed by SIGKILL; perhaps")


def test_no_reply_is_taken_for_that_of_a_later_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure that leaves a reply unread."""

    def full(file: Any) -> Any:
        raise MemoryError

    with helpers(1) as processes:
        with monkeypatch.context() as patch:
            patch.setattr("wsss.processes.pickle.load", full)
            with pytest.raises(MemoryError):
                processes.call("first", operator.mul, 2, 3)
        with pytest.raises(MachineError, match=r"^second: the process of call was killed"):
            processes.call("second", operator.mul, 5, 7)


def test_ctrl_c_does_not_wait_for_processes() -> None:
    """Two sleep for a minute, others wait for them."""

    def run(pids: list[int]) -> None:
        with Pool(2) as pool, helpers(2) as processes:
            pids += [worker.pid for worker in processes._workers]
            jobs: Jobs = [Job("first", lambda: None)]
            jobs += [Job(str(i), partial(processes.call, str(i), time.sleep, 60)) for i in range(5)]
            for _ in pool.run(jobs):
                raise KeyboardInterrupt

    pids: list[int] = []
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(pids)
    assert time.monotonic() - began < PATIENCE
    assert len(pids) == 2
    assert all(map(gone, pids))


def test_processes_end_with_the_one_that_started_them() -> None:
    """Killed, it can tell them nothing. Standard error stays open as long as any of them lives."""
    code = (
        "import operator, os\n"
        "from wsss.processes import Processes\n"
        "processes = Processes(operator.call, 2)\n"
        "assert processes.call('one', operator.add, 1, 2) == 3\n"
        "os.kill(os.getpid(), 9)"
    )
    left = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, timeout=PATIENCE, check=False)
    assert (left.returncode, left.stderr) == (-signal.SIGKILL, b"")


def test_a_process_imports_little_and_may_print(capfd: pytest.CaptureFixture[str]) -> None:
    loaded = "(__import__('wsss.labels.crf'), [m in __import__('sys').modules for m in ('torch', 'timm', 'cv2')])[1]"
    with helpers(1) as processes:
        assert processes.call("modules", eval, loaded) == [False, False, False]
        assert processes.call("print", print, "noise") is None
        assert processes.call("again", operator.add, 1, 2) == 3
    assert capfd.readouterr().out == ""


def test_an_error_keeps_nothing_alive() -> None:
    """Else a loader and its workers would wait for the garbage collector."""

    class Loader:
        def jobs(self) -> Iterator[Job[float]]:
            yield Job("bee", partial(operator.truediv, 1, 0))

    loader = Loader()
    alive = weakref.ref(loader)
    with suppress(ZeroDivisionError), Pool() as pool:
        list(pool.run(loader.jobs()))
    del loader
    assert alive() is None
