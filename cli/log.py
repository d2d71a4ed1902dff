"""Standard error as a log: a line that cannot be written is dropped and the work continues."""

from __future__ import annotations

import io
import os
import sys
from typing import IO


class Log(io.TextIOBase):
    """Writes to the present ``sys.stderr`` and ignores its errors (a full disk, a closed pipe).

    A failed line stays in the buffer of the stream. It would make every later write fail, and the exit status of
    Python 120, so the buffer is emptied into the null device.
    """

    def write(self, text: str) -> int:
        """Write text, or drop it; always its length."""
        try:
            self._stream().write(text)
        except OSError:
            self._drop()
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        try:
            self._stream().flush()
        except OSError:
            self._drop()

    def isatty(self) -> bool:
        """Whether standard error is a terminal."""
        return self._stream().isatty()

    def fileno(self) -> int:
        """File descriptor of standard error."""
        return self._stream().fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Encoding of standard error."""
        return getattr(self._stream(), "encoding", None) or "utf-8"

    def _stream(self) -> IO[str]:
        """``sys.stderr``, or the stream behind it while Rich draws a progress bar and redirects it."""
        stream: IO[str] = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
        return stream

    def _drop(self) -> None:
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


log = Log()
