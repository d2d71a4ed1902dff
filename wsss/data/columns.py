"""Columns of values for many images: arrays in place of a Python object an image.

A million short texts take their bytes and 8 more each, and an array is sent to a loader process as one block.

Shape suffixes: N texts or rows, M indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

import numpy as np
from numpy.typing import NDArray

BLOCK = 2**12
"""Texts that are gathered or hashed at once, so that temporary arrays stay in the cache of the processor."""
FACTOR = 0x100000001B3
"""Multiplier of the hash of a text; it is odd, so that it has an inverse modulo 2**64."""
INVERSE = pow(FACTOR, -1, 2**64)

Positions = NDArray[np.uint32] | NDArray[np.int64]
"""Positions in an array; 4 bytes each where its length allows."""


@dataclass(frozen=True, slots=True, eq=False)
class Texts(Sequence[str]):
    """Texts in one block of UTF-8 bytes. They are not empty; two columns may share the block.

    Attributes:
        blob: uint8, the bytes of the texts.
        starts_N: where each text begins.
        ends_N: one after its last byte.
    """

    blob: NDArray[np.uint8]
    starts_N: Positions
    ends_N: Positions

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """The column of some texts; file names that are no UTF-8 keep their bytes."""
        parts = [text.encode("utf-8", "surrogatepass") for text in texts]
        lengths_N = np.fromiter(map(len, parts), np.int64, len(parts))
        return cls._one_after_another(np.frombuffer(b"".join(parts), np.uint8), lengths_N)

    @classmethod
    def _one_after_another(cls, blob: NDArray[np.uint8], lengths_N: NDArray[np.int64]) -> Texts:
        ends_N = np.cumsum(lengths_N)
        return cls(blob, short(ends_N - lengths_N), short(ends_N))

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
        return self._decoded(int(self.starts_N[index]), int(self.ends_N[index]))

    def __iter__(self) -> Iterator[str]:
        return map(self._decoded, self.starts_N.tolist(), self.ends_N.tolist())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Texts) or len(self) != len(other):
            return False
        first, second = self.take(np.arange(len(self))), other.take(np.arange(len(other)))
        return np.array_equal(first.ends_N, second.ends_N) and np.array_equal(first.blob, second.blob)

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def take(self, index_M: NDArray[np.int64]) -> Texts:
        """The texts at these positions, each from 0 to N - 1, in a block of their own."""
        starts_M = self.starts_N[index_M].astype(np.int64)
        lengths_M = self.ends_N[index_M] - starts_M
        blob = np.empty(int(lengths_M.sum()), np.uint8)
        first = 0
        for block in _blocks(len(index_M)):
            position = _positions(starts_M[block], lengths_M[block])
            blob[first : first + len(position)] = self.blob[position]
            first += len(position)
        return self._one_after_another(blob, lengths_M)

    def inside(self, start: int, lengths_N: NDArray[np.int64]) -> Texts:
        """Parts of these texts, in the same block: from byte ``start`` of each, so many bytes long."""
        starts_N = self.starts_N.astype(np.int64) + start
        return Texts(self.blob, short(starts_N), short(starts_N + lengths_N))

    def hashes(self) -> NDArray[np.uint64]:
        """(N,) a 64-bit hash of each text: equal for equal texts, on every machine.

        A text of bytes b_0, b_1, ... has the hash of sum(FACTOR**j * (b_j + 1)) modulo 2**64.
        """
        hash_N = np.empty(len(self), np.uint64)
        for block in _blocks(len(self)):
            texts = self.take(np.arange(block.start, block.stop))
            powers, inverses = _powers(FACTOR, len(texts.blob)), _powers(INVERSE, len(texts.blob))
            sums = np.add.reduceat((texts.blob.astype(np.uint64) + 1) * powers, texts.starts_N.astype(np.int64))
            hash_N[block] = sums * inverses[texts.starts_N]  # FACTOR**(position in its text)
        return _mixed(hash_N)

    def _decoded(self, start: int, end: int) -> str:
        return self.blob[start:end].tobytes().decode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """Short lists of small integers, end to end.

    Attributes:
        values: int16, the lists one after the other.
        ends_N: where each ends: one after its last value.
    """

    values: NDArray[np.int16]
    ends_N: Positions

    @classmethod
    def of(cls, lists: Iterable[Sequence[int]]) -> Lists:
        """Lists of integers below 2**15."""
        values: list[int] = []
        ends = []
        for one in lists:
            values += one
            ends.append(len(values))
        return cls(np.array(values, np.int16), short(np.array(ends, np.int64)))

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
        starts_N = np.zeros(len(self), np.int64)
        starts_N[1:] = self.ends_N[:-1]
        return self.ends_N - starts_N

    def take(self, index_M: NDArray[np.int64]) -> Lists:
        """The lists at these positions, each from 0 to N - 1."""
        lengths_M = self.lengths()[index_M]
        position = _positions(self.ends_N[index_M] - lengths_M, lengths_M)
        return Lists(self.values[position], short(np.cumsum(lengths_M)))


def short(positions_N: NDArray[np.int64]) -> Positions:
    """The same positions, ascending, in 4 bytes each where that is possible."""
    return positions_N.astype(np.uint32) if not len(positions_N) or positions_N[-1] < 2**32 else positions_N


def _blocks(length: int) -> Iterator[slice]:
    for first in range(0, length, BLOCK):
        yield slice(first, min(first + BLOCK, length))


def _positions(starts_M: NDArray[np.int64], lengths_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions of M runs of elements, one run after the other."""
    begun_M = np.cumsum(lengths_M) - lengths_M
    return np.repeat(starts_M - begun_M, lengths_M) + np.arange(int(lengths_M.sum()))


@lru_cache(maxsize=2)
def _power_table(base: int, length: int) -> NDArray[np.uint64]:
    powers = np.full(length, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers)


def _powers(base: int, length: int) -> NDArray[np.uint64]:
    """The powers of a number modulo 2**64: base**0 to base**(length - 1)."""
    return _power_table(base, 1 << (length - 1).bit_length())[:length]


def _mixed(hash_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The same hashes with their bits spread (the finaliser of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        hash_N = (hash_N ^ (hash_N >> np.uint64(33))) * np.uint64(factor)
    return hash_N ^ (hash_N >> np.uint64(33))
