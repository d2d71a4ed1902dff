"""Text files of a data folder: tables, class names, split lists. They are UTF-8."""

from __future__ import annotations

from pathlib import Path

from wsss.data.findings import BadData

NO_TEXT = {
    b"PK\x03\x04": (
        "an Excel or OpenDocument workbook, or a ZIP file",
        "as CSV UTF-8 in the spreadsheet program",
    ),
    b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "as CSV UTF-8 in the spreadsheet program"),
    b"PAR1": ("a Parquet file", "as CSV: pandas.read_parquet(FILE).to_csv('tags.csv', index=False)"),
    b"\x1f\x8b": ("compressed with gzip", "uncompressed: gunzip FILE"),
    b"SQLite": ("an SQLite database", "the table as CSV"),
}
"""What a file is that begins with these bytes, and how to save it instead."""
MAX_TEXT = 2**30
"""Bytes of a text, at most; this many list ten million images."""


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """A text in UTF-8 or another encoding, with or without byte-order mark; every line ends in a line feed.

    Raises:
        DataError: it is missing, huge or in another encoding.
    """
    try:
        if not path.is_file() and path.exists():  # reading a pipe would block
            raise BadData.at("text-unreadable", path, "no regular file", f"ls -l {path}")
        size = path.stat().st_size
        if size > MAX_TEXT:
            raise BadData.at("text-unreadable", path, f"{size} bytes; at most {MAX_TEXT} are read", f"head {path}")
        content = path.read_bytes()
        if (kind := no_text(content)) is not None:
            raise BadData.at("text-encoding", path, f"{kind[0]}, which is no text", f"save it {kind[1]}")
        text = content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except LookupError as error:
        raise BadData.at("text-encoding", path, f"no encoding '{encoding}'", "--encoding utf-8") from error
    except UnicodeError as error:
        if not isinstance(error, UnicodeDecodeError):
            raise _other_encoding(path, content, str(error)) from error
        place = f"byte 0x{error.object[error.start]:02x} at position {error.start}"
        raise _other_encoding(path, content, place) from error
    except OSError as error:
        raise unreadable_text(path, error) from error
    if "\0" in text:  # UTF-16 of plain letters would pass as UTF-8
        raise _other_encoding(path, content, f"a zero byte at position {content.index(0)}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def no_text(content: bytes) -> tuple[str, str] | None:
    """What a file is that is no text, and how to save it instead; None where its first bytes do not tell."""
    return next((said for start, said in NO_TEXT.items() if content.startswith(start)), None)


def unreadable_text(path: Path, error: OSError) -> BadData:
    """The error for a text that the disk does not give."""
    return BadData.at("text-unreadable", path, f"cannot be read ({error.strerror})", f"ls -l {path}")


def _other_encoding(path: Path, content: bytes, why: str) -> BadData:
    """The error for a text that is not UTF-8, with the command that converts it."""
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content
    source = "UTF-16" if wide else "WINDOWS-1252"
    fix = f"save it as UTF-8: iconv -f {source} -t UTF-8 {path} > {path.stem}.utf8{path.suffix}"
    return BadData.at("text-encoding", path, f"not UTF-8 text ({why})", fix)
