"""A pipe in the place of a text is refused at once: reading it would wait for ever."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from wsss.data.findings import BadData
from wsss.data.photographs import is_ours
from wsss.data.readers.annotations import read_annotation
from wsss.data.readers.text import read_text

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_table_and_an_annotation(pipe: Path) -> None:
    with pytest.raises(BadData, match="no regular file"):
        read_text(pipe)
    with pytest.raises(BadData, match="no regular file"):
        read_annotation(pipe)


def test_a_manifest(pipe: Path) -> None:
    assert not is_ours(pipe)
