"""The brush strokes of Label Studio: a bit stream of run lengths of RGBA values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.data.areas import Area, BadShape, filled


def brushed(stream: Any, size: tuple[int, int]) -> Area:
    """The pixels of a brush stroke: those with an alpha above 127.

    The stream, most significant bit first: 32 bits number of values N; 5 bits word size - 1; four times 4 bits length
    size - 1; then until N values: 1 bit whether it is a run, 2 bits which length size, the length - 1, and the one
    value of the run or each of its values.

    Args:
        stream: bytes 0..255; an empty one is an empty mask.
        size: (H, W) of the image.

    Raises:
        BadShape: it is no such stream, or not one of an image of this size.
    """
    if not isinstance(stream, list) or not all(type(byte) is int and 0 <= byte <= 255 for byte in stream):
        raise BadShape("a brush whose rle is no list of bytes 0..255")
    if not stream:
        return filled(np.zeros(size, np.bool_))
    values = _values(bytes(stream), 4 * size[0] * size[1])
    return filled(values[3::4].reshape(size) > 127)


def _values(stream: bytes, expected: int) -> NDArray[np.int64]:
    """The values of a stream, which must be ``expected`` many."""
    total, at = 8 * len(stream), 0
    if total > 64 * (expected + 64):
        raise BadShape("a brush whose rle is longer than its image")
    chunk = np.unpackbits(np.frombuffer(stream, np.uint8))

    def take(count: int) -> int:
        nonlocal at
        if at + count > total:
            raise BadShape("a brush whose rle ends too early")
        value = 0
        for bit in chunk[at : at + count].tolist():
            value = value << 1 | bit
        at += count
        return value

    number = take(32)
    if number != expected:
        raise BadShape(f"a brush of {number} values; an image of this size has {expected} (RGBA)")
    word = take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values, done = np.zeros(expected, np.int64), 0
    while done < expected:
        is_run = take(1)
        length = take(sizes[take(2)]) + 1
        if done + length > expected:
            raise BadShape("a brush whose runs leave the image")
        if is_run:
            values[done : done + length] = take(word)
        else:
            values[done : done + length] = [take(word) for _ in range(length)]
        done += length
    return values
