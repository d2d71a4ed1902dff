"""Columns of values for many images: arrays in place of a Python object an image.

A million short texts take their bytes and 8 more each, and an array is sent to a loader process as one block.

Shape suffixes: N texts or rows, M indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

BLOCK = 2**16
"""Texts that are gathered or hashed at once, so that temporary arrays stay small."""
FACTOR = 0x100000001B3
"""Multiplier of the hash of a text: odd, so that its powers never become 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Texts(Sequence[str]):
    """Texts in one block of UTF-8 bytes.

    Attributes:
        blob: uint8, the bytes of every text, a zero byte after each.
        ends_N: int64, where each text ends: the position of its zero byte.
    """

    blob: NDArray[np.uint8]
    ends_N: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Texts without zero characters; file names in another encoding keep their bytes."""
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        lengths_N = np.fromiter((len(part) + 1 for part in parts), np.int64, len(parts))
        blob = np.frombuffer(b"".join(part + b"\0" for part in parts), np.uint8)
        return cls(blob, np.cumsum(lengths_N) - 1)

    def __len__(self) -> int:
        return len(self.ends_N)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Texts: ...

    def __getitem__(self, index: int | slice) -> str | Texts:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        index = range(len(self))[index]
        start = int(self.ends_N[index - 1]) + 1 if index else 0
        return self.blob[start : int(self.ends_N[index])].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self.ends_N.tolist():
            yield self.blob[start:end].tobytes().decode("utf-8", "surrogatepass")
            start = end + 1

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Texts)
            and np.array_equal(self.ends_N, other.ends_N)
            and np.array_equal(self.blob, other.blob)
        )

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def take(self, index_M: NDArray[np.int64]) -> Texts:
        """The texts at these positions, each from 0 to N - 1."""
        ends_M, lengths_M = self.ends_N[index_M], self._lengths()[index_M]
        blob = np.empty(int(lengths_M.sum()), np.uint8)
        first = 0
        for block in _blocks(len(index_M)):
            position, _ = _positions(ends_M[block] + 1 - lengths_M[block], lengths_M[block])
            blob[first : first + len(position)] = self.blob[position]
            first += len(position)
        return Texts(blob, np.cumsum(lengths_M) - 1)

    def hashes(self) -> NDArray[np.uint64]:
        """(N,) a 64-bit hash of each text: equal for equal texts, on every machine."""
        lengths_N = self._lengths()
        powers = np.full(int(lengths_N.max(initial=1)), FACTOR, np.uint64)
        powers[0] = 1
        np.cumprod(powers, out=powers)
        hash_N = np.empty(len(self), np.uint64)
        for block in _blocks(len(self)):
            length_n = lengths_N[block]
            position, offset = _positions(self.ends_N[block] + 1 - length_n, length_n)
            terms = (self.blob[position].astype(np.uint64) + 1) * powers[offset]
            hash_N[block] = _mixed(np.add.reduceat(terms, np.cumsum(length_n) - length_n))
        return hash_N

    def _lengths(self) -> NDArray[np.int64]:
        """(N,) bytes of each text with its zero byte."""
        return np.diff(self.ends_N, prepend=np.int64(-1))


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """Short lists of small integers, end to end.

    Attributes:
        values: int16, the lists one after the other.
        ends_N: int64, where each ends: one after its last value.
    """

    values: NDArray[np.int16]
    ends_N: NDArray[np.int64]

    @classmethod
    def of(cls, lists: Iterable[Sequence[int]]) -> Lists:
        """Lists of integers below 2**15."""
        values: list[int] = []
        ends = []
        for one in lists:
            values += one
            ends.append(len(values))
        return cls(np.array(values, np.int16), np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends_N)

    def __getitem__(self, index: int) -> tuple[int, ...]:
        start = int(self.ends_N[index - 1]) if index else 0
        return tuple(self.values[start : int(self.ends_N[index])].tolist())

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Lists)
            and np.array_equal(self.ends_N, other.ends_N)
            and np.array_equal(self.values, other.values)
        )

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def lengths(self) -> NDArray[np.int64]:
        """(N,) values in each list."""
        return np.diff(self.ends_N, prepend=np.int64(0))

    def take(self, index_M: NDArray[np.int64]) -> Lists:
        """The lists at these positions, each from 0 to N - 1."""
        lengths_M = self.lengths()[index_M]
        position, _ = _positions(self.ends_N[index_M] - lengths_M, lengths_M)
        return Lists(self.values[position], np.cumsum(lengths_M))


def _blocks(length: int) -> Iterator[slice]:
    for first in range(0, length, BLOCK):
        yield slice(first, min(first + BLOCK, length))


def _positions(
    starts_M: NDArray[np.int64], lengths_M: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each element of M runs that begin at ``starts_M``: its position, and its offset within its run."""
    begun_M = np.cumsum(lengths_M) - lengths_M
    offset = np.arange(int(lengths_M.sum())) - np.repeat(begun_M, lengths_M)
    return np.repeat(starts_M, lengths_M) + offset, offset


def _mixed(hash_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The same hashes with their bits spread (the finaliser of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        hash_N = (hash_N ^ (hash_N >> np.uint64(33))) * np.uint64(factor)
    return hash_N ^ (hash_N >> np.uint64(33))
