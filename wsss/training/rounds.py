"""Training in rounds (`segment.rounds`): a teacher labels the training split, and the run learns these labels.

The teacher is a run of its own in the folder ``teacher`` of the run, end to end and with one round less; its label maps
lie in ``labels``. They are better from the first step on than the pseudo labels that a run makes at its beginning
(self-training; Xie et al., Noisy Student, 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from torch import nn

from wsss.config import Config
from wsss.data.records import TaggedSet
from wsss.errors import Interrupted, MachineError
from wsss.files import DiskError
from wsss.inference.labelling import make_pseudo_labels
from wsss.models.checkpoint import file_hash
from wsss.models.network import Network
from wsss.outputs.journal import read_journal
from wsss.outputs.merge import merge_labels
from wsss.outputs.shards import found_shards
from wsss.shard import Shard
from wsss.training.confirmation import say_growth
from wsss.training.loop import RunContext

TEACHER, LABELS = "teacher", "labels"
"""Folders in a run with more than one round: the run of its teacher, and the teacher's label maps."""


def teacher_config(config: Config) -> Config:
    """The config of the teacher: that of its student with one round less."""
    section = config.segment.model_copy(update={"rounds": config.segment.rounds - 1})
    return config.model_copy(update={"segment": section})


def learn_from_teacher(
    context: RunContext, student: nn.Module, train: TaggedSet, train_teacher: Callable[[Path], Network]
) -> None:
    """Train the teacher of a run and let it label the training split. What exists already of both is kept.

    Args:
        context: the run of the student.
        student: moved to the CPU while the teacher works, since both need the device's memory.
        train: is labelled.
        train_teacher: trains in the folder given, or resumes there; returns the network that is shown.

    Raises:
        Interrupted, MachineError: with a remedy that names the run of the student, which the user started.
    """
    teacher = context.run / TEACHER
    student.to("cpu")
    with _naming(context.run, teacher):
        network = train_teacher(teacher)
        _label(context, network, train)
    student.to(context.device)


def _label(context: RunContext, network: Network, train: TaggedSet) -> None:
    """Label the training split with the teacher's network, and say whether the labels have grown.

    Each process labels its share, bit for bit as one process would. A signal to one of them alone stops all when the
    others have done their shares.
    """
    ranks, labels = context.ranks, context.run / LABELS
    shard = Shard(ranks.rank, ranks.world) if ranks.world > 1 else None
    digest = ranks.lead(partial(_divide_anew, context, shard))
    ranks.agree(
        lambda: make_pseudo_labels(
            network,
            train,
            labels,
            context.config,
            context.reporter,
            device=context.device,
            checkpoint_sha256=digest,
            shard=shard,
        )
    )
    ranks.lead(partial(_merge, context, network, train, shard))


def _divide_anew(context: RunContext, shard: Shard | None) -> str:
    """Keep what another number of processes labelled before; returns the digest of the teacher's checkpoint."""
    labels = context.run / LABELS
    if any(shard is None or one.count != shard.count for one in found_shards(labels)):
        merge_labels(labels, context.reporter, partial=True)
    return file_hash(context.run / TEACHER / "last.pt")


def _merge(context: RunContext, network: Network, train: TaggedSet, shard: Shard | None) -> None:
    labels = context.run / LABELS
    if shard is not None:
        merge_labels(labels, context.reporter)
    say_growth(network, train, read_journal(labels), context.config, context.device, context.reporter)


@contextmanager
def _naming(run: Path, teacher: Path) -> Iterator[None]:
    """Errors that say how to resume the teacher say how to resume the run."""
    try:
        yield
    except Interrupted as error:
        raise Interrupted(error.problem, f"--resume {run}") from error
    except DiskError as error:
        raise MachineError(error.problem, f"{error.remedy}, then --resume {run}") from error
    except MachineError as error:
        raise MachineError(error.problem, error.fix.replace(f"--resume {teacher}", f"--resume {run}")) from error
