"""Standard error as a log, whose lines are dropped where they cannot be written, and standard output.

Text is escaped where it would move the cursor of a terminal, and never fails to be encoded. ``--quiet`` leaves errors
alone on standard error, ``--log-json`` makes each line of it one JSON object (`event`).
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any, NoReturn

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that a terminal obeys instead of showing them; file names may hold them."""


class Log(io.TextIOBase):
    """Writes to the present ``sys.stderr`` and ignores its errors (a full disk, a closed pipe).

    A failed line stays in the buffer of the stream. It would make every later write fail, and the exit status of
    Python 120, so the buffer is emptied into the null device.
    """

    def write(self, text: str) -> int:
        """Write text, or drop it; always its length."""
        try:
            self._stream().write(text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            self._stream().flush()
        except OSError as error:
            self._drop(error)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream().isatty()

    def fileno(self) -> int:
        """Its file descriptor."""
        return self._stream().fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Its encoding."""
        return getattr(self._stream(), "encoding", None) or "utf-8"

    def _stream(self) -> IO[str]:
        """``sys.stderr``, or the stream behind it while Rich draws a progress bar and redirects it."""
        stream: IO[str] = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        return stream

    def _drop(self, error: OSError) -> None:
        try:
            number = self._stream().fileno()
        except (OSError, AttributeError):
            return
        kept, null = os.dup(number), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, number)
            self._stream().flush()
        finally:
            os.dup2(kept, number)
            os.close(kept)
            os.close(null)


class Output(Log):
    """Standard output. After an error nothing more is written; the program reports it at its end.

    A name that the encoding lacks is written in the bytes that the file system has for it, so that programs that read
    it find the file.

    Attributes:
        failure: why it could not be written; None also where its reader has ended, as ``| head`` does.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self.failure: OSError | None = None
        self._out = io.StringIO() if stream is None else stream
        self._is_missing = stream is None
        self._ended = False
        if isinstance(stream, io.TextIOWrapper):
            codecs.register_error("wsss-names", _bytes_of_names)
            stream.reconfigure(errors="wsss-names")

    def write(self, text: str) -> int:
        """Write text, or drop it after an error; always its length."""
        if not isinstance(text, str):  # click asks in this way whether a stream takes bytes
            raise TypeError("standard output takes text")
        if text and self._is_missing:
            self.failure = OSError(errno.EBADF, "it is closed")
        return len(text) if self._ended else super().write(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        if not self._ended:
            super().flush()

    def _stream(self) -> IO[str]:
        return self._out

    def _drop(self, error: OSError) -> None:
        if not isinstance(error, BrokenPipeError):
            self.failure = error
        super()._drop(error)
        self._ended = True


log = Log()


@dataclass(slots=True)
class Style:
    """What standard error carries; of one program, as the log is.

    Attributes:
        quiet: errors alone.
        as_json: one JSON object a line.
    """

    quiet: bool = False
    as_json: bool = False

    def choose(self, words: Sequence[str]) -> None:
        """Choose by the words of a command line, also of one that cannot be parsed: its error is a line too."""
        options = words[: words.index("--")] if "--" in words else words
        self.quiet, self.as_json = QUIET in options, LOG_JSON in options


QUIET, LOG_JSON = "--quiet", "--log-json"
style = Style()


def event(kind: str, /, **facts: Any) -> None:
    """Write one line of ``--log-json``: the time, the kind of event, and what belongs to it."""
    log.write(json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": kind, **facts}) + "\n")
    log.flush()


def printable(text: str) -> str:
    """The text in one line, with escapes in place of control characters."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


GENERAL = ("", "usage", "data", "machine", "interrupted")
"""Kinds of errors that say no more than the exit status does."""


def leave(problem: str, fix: str, status: int, kind: str = "") -> NoReturn:
    """End the program with the two lines of an error, and a third one where its kind has a page of its own."""
    if style.as_json:
        event("error", kind=kind, problem=problem, fix=fix, status=status)
        sys.exit(status)
    page = () if kind in GENERAL else (("more:  ", f"wsss explain {kind}"),)
    for word, text in (("error: ", problem), ("fix:   ", fix), *page):
        log.write(word + "\n".join(map(printable, text.split("\n"))) + "\n")
    log.flush()
    sys.exit(status)


def _bytes_of_names(error: UnicodeError) -> tuple[str | bytes, int]:
    """Error handler of an encoder: the bytes that the file system has for the characters, or escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    try:
        return os.fsencode(characters), error.end
    except UnicodeEncodeError:
        return characters.encode("ascii", "backslashreplace"), error.end
