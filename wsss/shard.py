"""A shard: one of N equal parts of the work of a command, which any scheduler can start by itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from wsss.errors import UsageError
from wsss.launcher import Place

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """The items ``index``, ``index + count``, ``index + 2 * count``, ... of a list.

    Attributes:
        index: from 0 to ``count - 1``.
        count: number of shards.
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def file(self) -> str:
        """Its part of file names."""
        return f"{self.index}-of-{self.count}"

    def part(self, items: Sequence[Item]) -> Sequence[Item]:
        """Its items of a list."""
        return items[self.index :: self.count]


def parse_shard(text: str) -> Shard:
    """The shard of "I/N", or of "I-of-N" in a file name.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d+)(?:/|-of-)(\d+)", text, re.ASCII)
    if found is None or int(found[2]) == 0:
        raise UsageError(f"--shard {text}: expected I/N, the first of four is 0/4", "--shard 0/4")
    shard = Shard(int(found[1]), int(found[2]))
    if shard.index >= shard.count:
        last = f"{shard.count - 1}/{shard.count}"
        raise UsageError(f"--shard {text}: shards are counted from 0, so the last one is {last}", f"--shard {last}")
    return shard


def chosen_shard(text: str | None, place: Place) -> Shard | None:
    """The shard of the option ``--shard``, or of the rank where several processes were started together; else None.

    Raises:
        UsageError: it is none, or there are both.
    """
    if text is not None and place.world > 1:
        raise UsageError(
            f"--shard {text}: {place.launcher} started {place.world} processes, each takes the shard of its rank",
            "leave out --shard, or start one process a shard",
        )
    if text is not None:
        return parse_shard(text)
    return Shard(place.rank, place.world) if place.world > 1 else None
