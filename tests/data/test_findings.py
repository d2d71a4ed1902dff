"""What is wrong with data is said in one line an error."""

from __future__ import annotations

from pathlib import Path

from wsss.data.findings import BadData


def test_names_with_line_breaks_stay_in_one_line() -> None:
    error = BadData.at("image-missing", Path("/photos/new\nline"), "no image 'a\r\nb'", "rename a\nb")
    assert (error.problem, error.fix) == ("/photos/new\\nline: no image 'a\\r\\nb'", "rename a\\nb")
