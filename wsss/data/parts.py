"""A part of a file that is a file of its own: a member of a tar shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Part:
    """Where the bytes of a member lie.

    Attributes:
        file: the shard.
        start: of its first byte in the shard.
        length: in bytes.
    """

    file: Path
    start: int
    length: int

    def read(self, most: int | None = None) -> bytes:
        """The bytes, at most ``most`` of them; fewer where the shard ends before.

        Each call opens the shard: loader processes that were forked would share the position in an open file.
        """
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(self.length if most is None else min(most, self.length))
