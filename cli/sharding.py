"""The share of a command's work that this process does: ``--shard I/N``, or the rank that srun or torchrun gave it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsss.config import RunSection
from wsss.errors import UsageError
from wsss.launcher import Place, find_place
from wsss.reporting import Reporter
from wsss.shard import Shard, chosen_shard


@dataclass(frozen=True, slots=True)
class SharedWork:
    """The share of this process.

    Attributes:
        shard: its part of the work; None where it does all.
        place: its rank, where srun or torchrun started several processes; these merge their shards themselves.
    """

    shard: Shard | None
    place: Place

    @classmethod
    def of(cls, option: str | None) -> SharedWork:
        """The share that the option ``--shard`` or the environment says.

        Raises:
            UsageError: it is none.
        """
        place = find_place()
        return cls(chosen_shard(option, place), place)

    def on_its_device(self, run: RunSection) -> RunSection:
        """The section ``run`` with the GPU of this rank, where several ranks share a machine with several GPUs."""
        import torch

        if self.place.world == 1 or run.device not in ("auto", "cuda") or not torch.cuda.is_available():
            return run
        return run.model_copy(update={"device": f"cuda:{self.place.local_rank % torch.cuda.device_count()}"})

    def merged_labels(self, out: Path, reporter: Reporter) -> dict[str, int]:
        """Totals of the whole where this is the last of some ranks, which then merges them; else nothing."""
        from wsss.outputs.merge import merge_labels, merge_last

        if self.shard is None:
            return {}
        counts = merge_last(out, reporter, merge_labels) if self.place.world > 1 else None
        self.say(out, reporter, merged=counts is not None)
        return counts or {}

    def facts(self) -> dict[str, Any]:
        """The shard, for ``--json``."""
        return {} if self.shard is None else {"shard": str(self.shard)}

    def say(self, out: Path, reporter: Reporter, *, merged: bool) -> None:
        """Say that the shard of this process is done, or that all were and are merged."""
        if merged and self.shard is not None:
            reporter.say(f"all {self.shard.count} shards are merged")
        else:
            more = "" if self.place.world > 1 else f"; when all are: wsss merge {out}"
            reporter.say(f"shard {self.shard} is done{more}")


def refuse_ranks(command: str) -> None:
    """Refuse a command that one process does, where several were started together.

    Raises:
        UsageError: they were; rank 0 alone says it.
    """
    place = find_place()
    if place.world > 1:
        what = f"{place.launcher} started {place.world} processes of wsss {command}, which is the work of one"
        error = UsageError(what, f"start wsss {command} without {place.launcher}, or with one task")
        error.is_said = place.rank > 0
        raise error
