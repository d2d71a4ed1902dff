"""The processes of a training: one a device, started together by ``torchrun`` or ``srun`` (`wsss.launcher`).

All processes take the same steps, each on its rows of every batch, and have the same weights after each step. Rank 0
alone writes files and reports. `Ranks` is the form for one process: every method does the work and nothing else.
`Group` is the form for several. Whatever decides what happens next goes through `lead`, `agree` or `any`, so that all
processes do the same and none waits for one that went another way.

An error that one process raises in such a call is raised in all of them, and printed by one. A process that dies closes
its connections, which ends the others within seconds; one that hangs ends them after ``PATIENCE``. A program that ends
for such a reason does so by `wsss.launcher.end_where_joined`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wsss.config import RunSection
from wsss.errors import MachineError, UsageError, WsssError
from wsss.launcher import Place, find_place, meeting_point
from wsss.machine import prepare_device
from wsss.stopping import AGAIN

Result = TypeVar("Result")

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others. It must be longer than anything that one does while the others wait: the
first scan of a large data set, or its share of a validation less that of the fastest."""
LOST = re.compile(r"gloo|nccl|tcpstore|connection (closed|reset|refused)|broken pipe|timed out", re.IGNORECASE)
"""In errors of torch that say that another process died or does not answer."""
LATE = re.compile(r"time(d ?)?out", re.IGNORECASE)
"""In those of processes that do not answer."""


class Ranks:
    """A training in one process.

    Attributes:
        rank: number of this process, from 0.
        world: number of processes.
    """

    rank = 0
    world = 1

    @property
    def share(self) -> slice:
        """The items of a list that are this process's own, in turns: of batches, so that each batch stays whole."""
        return slice(self.rank, None, self.world)

    def device(self, run: RunSection) -> torch.device:
        """The device of this process (`prepare_device`)."""
        return prepare_device(run)

    def lead(self, work: Callable[[], Result]) -> Result:
        """Do some work in rank 0 alone; every process gets its result, which can be pickled, or its error."""
        return work()

    def agree(self, work: Callable[[], Result]) -> Result:
        """Do some work in every process; an error of one is raised in all."""
        return work()

    def gather(self, value: Result) -> list[Result]:
        """The values of all processes by rank; they can be pickled."""
        return [value]

    def collect(self, values: list[Result]) -> list[Result]:
        """In rank 0 the values of all processes by rank, elsewhere none; they can be pickled."""
        return values

    def any(self, flag: bool) -> bool:
        """Whether it is true in some process."""
        return flag

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, of the same shape everywhere; without a gradient."""
        return values

    def wrap(self, step: nn.Module, *, unused: bool) -> nn.Module:
        """A training step whose backward leaves the mean gradient of all processes.

        Args:
            step: see ``wsss.training.step``.
            unused: whether some parameters get no gradient; they stay without.
        """
        return step

    def unsynced(self, wrapped: nn.Module) -> AbstractContextManager[object]:
        """Inside, forward and backward add to the gradients of this process alone."""
        return nullcontext()

    @contextmanager
    def hold(self, make: Callable[[], AbstractContextManager[object]], fix: str) -> Iterator[None]:
        """Enter a context in rank 0 alone, such as the lock of a folder, while all processes are inside.

        Args:
            make: the context.
            fix: the command that continues where another process has died.
        """
        with ExitStack() as held, self._finding_the_lost(fix):
            self.lead(lambda: _enter(held, make))
            yield

    def _finding_the_lost(self, fix: str) -> AbstractContextManager[object]:
        return nullcontext()


ALONE = Ranks()


class Group(Ranks):
    """A training in several processes; `joined` makes it.

    Args:
        place: of this process.
        patience: see ``PATIENCE``.
    """

    def __init__(self, place: Place, patience: timedelta = PATIENCE) -> None:
        self.rank, self.world = place.rank, place.world
        self.place, self.patience = place, patience

    def device(self, run: RunSection) -> torch.device:
        """CUDA's device of the local rank, or the CPU.

        Raises:
            UsageError: one GPU was named for all processes.
            MachineError: there are fewer GPUs than processes on this machine.
        """
        if ":" in run.device:
            raise UsageError(f"--device {run.device} with {self.world} processes: each takes its own", "--device cuda")
        device = prepare_device(run)
        if device.type != "cuda":
            return device
        local, count = self.place.local_rank, torch.cuda.device_count()
        if local >= count > 1:
            raise MachineError(f"there are {count} GPUs for more processes", f"start {count} processes on a machine")
        device = torch.device("cuda", local % count)  # a process that is shown one GPU alone sees it as number 0
        torch.cuda.set_device(device)
        return device

    def lead(self, work: Callable[[], Result]) -> Result:
        """See ``Ranks.lead``."""
        outcome: list[Any] = [_tried(work)] if self.rank == 0 else [None]
        dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
        result, error = outcome[0]
        if error is not None:
            raise _heard(error, self.rank == 0)
        return result  # type: ignore[no-any-return]

    def agree(self, work: Callable[[], Result]) -> Result:
        """See ``Ranks.agree``; where several fail, the error of the first is raised."""
        result, error = _tried(work)
        if self.any(error is not None):
            first, found = next((i, one) for i, one in enumerate(self.gather(error)) if one is not None)
            raise _heard(error if first == self.rank and error is not None else found, first == self.rank)
        return result  # type: ignore[return-value]  # there is one where there is no error

    def gather(self, value: Result) -> list[Result]:
        """See ``Ranks.gather``."""
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def collect(self, values: list[Result]) -> list[Result]:
        """See ``Ranks.collect``."""
        found: list[Any] | None = [None] * self.world if self.rank == 0 else None
        dist.gather_object(values, found)
        return [value for part in found or [] for value in part]

    def any(self, flag: bool) -> bool:
        """See ``Ranks.any``."""
        found = torch.tensor(int(flag))
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def mean(self, values: Tensor) -> Tensor:
        """See ``Ranks.mean``; integers are added exactly."""
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.world

    def wrap(self, step: nn.Module, *, unused: bool) -> nn.Module:
        """See ``Ranks.wrap``. The buffers of a network never change, so they are not sent at each step."""
        warnings.filterwarnings("ignore", "Grad strides do not match")  # of depthwise kernels; costs a copy of them
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers`")  # later versions have another name for it
            return DistributedDataParallel(step, broadcast_buffers=False, find_unused_parameters=unused)

    def unsynced(self, wrapped: nn.Module) -> AbstractContextManager[object]:
        """See ``Ranks.unsynced``."""
        assert isinstance(wrapped, DistributedDataParallel)
        return wrapped.no_sync()

    @contextmanager
    def _finding_the_lost(self, fix: str) -> Iterator[None]:
        """Say in this program's words that another process died or hangs."""
        try:
            yield
        except RuntimeError as error:
            words = f"{type(error).__name__}: {error}"
            if not (isinstance(error, dist.DistError) or LOST.search(words)):
                raise
            what = f"did not answer for {self.patience}" if LATE.search(words) else "died; its last lines say why"
            raise MachineError(f"another of the {self.world} processes of this run {what}", fix) from error


@contextmanager
def joined(place: Place | None = None, patience: timedelta = PATIENCE) -> Iterator[Ranks]:
    """Meet the processes that were started together with this one; alone where there are none.

    Args:
        place: of this process; None asks the environment.
        patience: see ``PATIENCE``.

    Raises:
        MachineError: they cannot meet; later, another one died or does not answer.
    """
    place = place or find_place()
    if place.world == 1:
        yield ALONE
        return
    host, port = meeting_point()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    group = Group(place, patience)
    try:
        dist.init_process_group(
            backend, f"tcp://{host}:{port}", rank=place.rank, world_size=place.world, timeout=patience
        )
    except RuntimeError as error:
        what = f"the {place.world} processes of this run cannot meet at {host}, port {port}: {error}"
        raise MachineError(
            what.splitlines()[0], "export MASTER_ADDR=HOST MASTER_PORT=PORT  # that all can reach"
        ) from error
    with group._finding_the_lost(AGAIN):
        yield group
        group.any(False)  # none leaves while another one still reads from it
    dist.destroy_process_group()


def _enter(held: ExitStack, make: Callable[[], AbstractContextManager[object]]) -> None:
    held.enter_context(make())


def _tried(work: Callable[[], Result]) -> tuple[Result | None, WsssError | None]:
    """The result of some work, or its error."""
    try:
        return work(), None
    except WsssError as error:
        return None, error


def _heard(error: WsssError, own: bool) -> WsssError:
    """An error to raise; that of another process is printed there."""
    error.is_said = not own
    return error
