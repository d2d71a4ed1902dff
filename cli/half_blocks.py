"""Pictures in a terminal: two pixels in each character cell, as the colours of an upper half block."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.style import Style
from rich.text import Text

HALF = "\u2580"

Pixel = Sequence[int]


def half_blocks(picture: Sequence[Sequence[Pixel]]) -> Text:
    """The rows of an RGB picture as text of half as many lines; a last odd row has no colour below it."""
    text = Text(no_wrap=True)
    for top in range(0, len(picture), 2):
        for column, above in enumerate(picture[top]):
            below = picture[top + 1][column] if top + 1 < len(picture) else None
            behind = "" if below is None else f" on rgb({below[0]},{below[1]},{below[2]})"
            text.append(HALF, Style.parse(f"rgb({above[0]},{above[1]},{above[2]}){behind}"))
        text.append("\n")
    return text


def can_show(console: Console) -> bool:
    """Whether the console is a terminal with colours whose encoding has half blocks."""
    return console.is_terminal and console.color_system is not None and console.encoding.startswith("utf")
