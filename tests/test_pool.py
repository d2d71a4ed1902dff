"""Order of results, limits, errors and shutdown of the pool and of its processes."""

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

TIMEOUT = 20.0
"""Seconds after which a test that waits has failed."""

Jobs = list[Job[Any]]


def helpers(count: int) -> Processes[..., Any]:
    """Processes whose function is `operator.call`: a job gives the function to call and its arguments."""
    return Processes(cast(Any, operator.call), count)


def has_ended(pid: int) -> bool:
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
        assert second_is_done.wait(TIMEOUT)
        return 1

    def second() -> int:
        second_is_done.set()
        return 2

    with Pool() as pool:
        assert list(pool.run([Job("first", first), Job("second", second)])) == [1, 2]


def test_jobs_in_flight_are_bounded() -> None:
    """Every job waits until the pool takes no more jobs, so a time-out shows that the limit is wrong."""
    taken, full = 0, threading.Event()

    def jobs(pool: Pool) -> Iterator[Job[bool]]:
        nonlocal taken
        for i in range(20):
            taken += 1
            if taken == pool.in_flight:
                full.set()
            yield Job(str(i), partial(full.wait, TIMEOUT))

    with Pool() as pool:
        for done, waited in enumerate(pool.run(jobs(pool))):
            assert waited
            assert done < taken <= done + pool.in_flight
    assert taken == 20


def test_a_job_of_many_pixels_is_finished_before_the_next_is_made() -> None:
    """Two of half the bound are held together, a third waits; nothing is held beside one above the bound."""
    held: list[int] = []
    beside: list[int] = []
    lock = threading.Lock()

    def jobs() -> Iterator[Job[None]]:
        for pixels in [MOST_PIXELS // 2] * 6 + [2 * MOST_PIXELS] + [MOST_PIXELS // 2] * 3:
            with lock:
                beside.append(sum(held))
                held.append(pixels)  # the job exists from here on
            yield Job("photo", partial(release, pixels), pixels)

    def release(pixels: int) -> None:
        time.sleep(0.01)
        with lock:
            held.remove(pixels)

    with Pool() as pool:
        assert len(list(pool.run(jobs()))) == 10
    assert not held
    assert max(beside) <= MOST_PIXELS
    assert beside[7] == 0


def test_an_error_names_the_image_and_cancels_the_rest() -> None:
    """Jobs that have begun end; none of the others begins, although workers become free."""
    begun: list[int] = []
    taken, release = threading.Event(), threading.Event()

    def fail() -> None:
        assert taken.wait(TIMEOUT)
        threading.Timer(0.5, release.set).start()
        raise ValueError("too dark")

    def wait(i: int) -> None:
        begun.append(i)
        assert release.wait(TIMEOUT)

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
    assert all(map(has_ended, pids))


def test_a_process_that_dies() -> None:
    """The error names the image that ended the process, also if a later call finds the ended process."""
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
    assert all(map(has_ended, pids))


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
    """Two processes sleep for a minute, other jobs wait for them."""

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
    assert time.monotonic() - began < TIMEOUT
    assert len(pids) == 2
    assert all(map(has_ended, pids))


def test_processes_end_with_the_one_that_started_them() -> None:
    """The parent is killed, so it cannot stop them; standard error is closed only when all of them have ended."""
    code = (
        "import operator, os\n"
        "from wsss.processes import Processes\n"
        "processes = Processes(operator.call, 2)\n"
        "assert processes.call('one', operator.add, 1, 2) == 3\n"
        "os.kill(os.getpid(), 9)"
    )
    left = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, timeout=TIMEOUT, check=False)
    assert (left.returncode, left.stderr) == (-signal.SIGKILL, b"")


def test_a_process_imports_little_and_may_print(capfd: pytest.CaptureFixture[str]) -> None:
    loaded = "(__import__('wsss.labels.crf'), [m in __import__('sys').modules for m in ('torch', 'timm', 'cv2')])[1]"
    with helpers(1) as processes:
        assert processes.call("modules", eval, loaded) == [False, False, False]
        assert processes.call("print", print, "noise") is None
        assert processes.call("again", operator.add, 1, 2) == 3
    assert capfd.readouterr().out == ""


def test_an_error_keeps_no_loader_alive() -> None:
    """Otherwise a loader and its workers would end only when the garbage collector runs."""

    class Loader:
        def jobs(self) -> Iterator[Job[float]]:
            yield Job("bee", partial(operator.truediv, 1, 0))

    loader = Loader()
    alive = weakref.ref(loader)
    with suppress(ZeroDivisionError), Pool() as pool:
        list(pool.run(loader.jobs()))
    del loader
    assert alive() is None
