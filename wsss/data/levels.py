"""Which values of images with more than 8 bits a sample are black and white: of 12 bits in 16, 0 and 4095."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from wsss.data.images import Levels
from wsss.data.records import Records

AUTO = "auto"


def parse_levels(text: str) -> Levels | None:
    """The values of black and white that ``--range`` says, such as "0,4095"; None for "auto"."""
    if text == AUTO:
        return None
    low, _, high = text.partition(",")
    return int(low), int(high)


def with_levels(records: Records, text: str, say: Callable[[str], None]) -> Records:
    """Records that were scanned, whose images are decoded in one range where they have more than 8 bits a sample.

    Args:
        records: of a set that is used together; one range holds for all.
        text: ``data.levels``; "auto" takes all values of the bits that some image uses.
        say: is told the range, where an image has more than 8 bits.
    """
    if records.bits <= 8:
        return records
    levels = parse_levels(text) or (0, 2**records.bits - 1)
    why = f"the images use {records.bits} bits" if text == AUTO else "as --range says"
    say(f"16-bit images: {levels[0]} is black and {levels[1]} is white ({why}; --range LOW,HIGH for other values)")
    return replace(records, levels=levels)


def as_text(levels: Levels | None) -> str:
    """A range as ``data.levels`` says it."""
    return AUTO if levels is None else f"{levels[0]},{levels[1]}"
