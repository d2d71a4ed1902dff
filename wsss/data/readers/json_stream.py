"""Read the lists of a large JSON object element by element, with the place of each in the file.

A COCO file may have 450 MB; a chunk of it and the element at hand are all that is in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from wsss.data.findings import BadData

CHUNK = 2**20
MAX_ELEMENT = 2**28
"""Most bytes of one element."""
BLANK = re.compile(r"[ \t\r\n]*")
NUMBERS = r'("{key}"[ \t\r\n]*:[ \t\r\n]*)\[[-+0-9.eE,\s\[\]]*\]'
"""A key and its list of numbers, or of lists of them; its syntax is not checked."""
UNFINISHED = ("", ".", "e", "E")
"""What follows a number of which the window may hold only a part."""
DECODER = json.JSONDecoder()


class _Text:
    """A window of the file as latin-1, in which a character is a byte."""

    def __init__(self, file: BinaryIO, unread: re.Pattern[str] | None) -> None:
        self._file = file
        self._unread = unread
        self.text = ""
        self.at = 0
        self.start = 0

    def more(self) -> bool:
        """Drop what was read and append as much again as there is left, at least a chunk."""
        rest = self.text[self.at :]
        if len(rest) > MAX_ELEMENT:
            raise ValueError(f"an element of more than {MAX_ELEMENT} bytes")
        new = self._file.read(max(CHUNK, len(rest)))
        text = rest + new.decode("latin-1")
        if self._unread is not None:
            text = self._unread.sub(_emptied, text)
        self.start, self.text, self.at = self.start + self.at, text, 0
        return bool(new)

    def peek(self) -> str:
        """The next character that is no blank; "" at the end."""
        while True:
            self.at = BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, expected: str) -> None:
        """Read one character."""
        found = self.peek()
        if found != expected:
            raise ValueError(f"expected '{expected}' at byte {self.start + self.at}, found '{found}'")
        self.at += 1

    def value(self) -> tuple[Any, int, int]:
        """The next value, its first byte and its length."""
        self.peek()
        ended = False
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
                if ended or self.text[end : end + 1] not in UNFINISHED:
                    break
            except json.JSONDecodeError as error:
                if ended:
                    raise ValueError(f"{error.msg} at byte {self.start + error.pos}") from error
            ended = not self.more()
        first, piece = self.start + self.at, self.text[self.at : end]
        self.at = end
        return (value if piece.isascii() else json.loads(piece.encode("latin-1"))), first, len(piece)


def _emptied(found: re.Match[str]) -> str:
    """The same key with ``[1]`` for its numbers, and blanks, so that all that follows keeps its place."""
    key, numbers = found[1], found[0][len(found[1]) :]
    if not any(digit in numbers for digit in "0123456789"):
        return found[0]
    return f"{key}[1{' ' * (len(numbers) - 3)}]"


def elements(path: Path, lists: frozenset[str], unread: str | None = None) -> Iterator[tuple[str, Any, int, int]]:
    """The values of a JSON object: key, value, first byte and length.

    Args:
        path: the file.
        lists: keys whose lists are given element by element; other values are given as a whole.
        unread: a key whose lists of numbers are given as ``[1]``; most of the time would go into reading them.

    Raises:
        BadData: it cannot be read, or is not such a JSON object.
    """
    try:
        with path.open("rb") as file:
            numbers = None if unread is None else re.compile(NUMBERS.replace("{key}", re.escape(unread)))
            yield from _elements(_Text(file, numbers), lists)
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise BadData.at("annotation-unreadable", path, what, f"ls -l {path}") from error
    except RecursionError as error:
        fix = "export it again"
        raise BadData.at("annotation-unreadable", path, "nested too deeply", fix) from error
    except ValueError as error:
        what = f"not a JSON object of images and annotations ({error})"
        raise BadData.at("annotation-unreadable", path, what, f"python -m json.tool {path}") from error


def _elements(text: _Text, lists: frozenset[str]) -> Iterator[tuple[str, Any, int, int]]:
    if text.peek() == "\xef":  # byte-order mark
        for character in "\xef\xbb\xbf":
            text.take(character)
    text.take("{")
    while text.peek() != "}":
        key, _, _ = text.value()
        if not isinstance(key, str):
            raise ValueError("a key that is no text")
        text.take(":")
        if key in lists and text.peek() == "[":
            text.take("[")
            while text.peek() != "]":
                yield (key, *text.value())
                if text.peek() != "]":
                    text.take(",")
            text.take("]")
        else:
            yield (key, *text.value())
        if text.peek() != "}":
            text.take(",")
    text.take("}")
