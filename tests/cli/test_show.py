"""``wsss show``: the file that it writes, and half blocks in a terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from wsss.cli.half_blocks import HALF, can_show, half_blocks
from wsss.models.checkpoint import save_checkpoint

RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)


def test_half_blocks_hold_two_rows_each() -> None:
    text = half_blocks([[RED, GREEN], [BLUE, RED], [GREEN, BLUE]])
    assert text.plain == f"{HALF * 2}\n{HALF * 2}\n"
    styles = [str(span.style) for span in text.spans]
    assert styles[0] == "rgb(255,0,0) on rgb(0,0,255)"
    assert styles[3] == "rgb(0,0,255)"  # no row below it


def test_only_a_terminal_with_colours_gets_them() -> None:
    assert not can_show(Console(file=io.StringIO()))
    assert not can_show(Console(file=io.StringIO(), force_terminal=True, no_color=True, color_system=None))
    utf8 = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert can_show(Console(file=utf8, force_terminal=True, color_system="truecolor"))
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert not can_show(Console(file=ascii_only, force_terminal=True, color_system="truecolor"))


@pytest.fixture
def run(tmp_path: Path, small_network: Callable[..., Any], tiny_config: Any) -> Path:
    save_checkpoint(tmp_path / "run" / "last.pt", small_network(), tiny_config())
    return tmp_path / "run"


def test_a_sheet_is_written(wsss: Callable[..., Any], run: Path, scenes: Path, tmp_path: Path) -> None:
    image = next((scenes / "images").glob("val_*"))
    words = ("show", image, "--run", run, "-o", tmp_path / "sheet.png", "--tags", "bee", "--device", "cpu")
    done = wsss(*words, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out) == {"output": str(tmp_path / "sheet.png"), "classes": ["bee"]}
    assert HALF not in done.err
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert (sheet.format, sheet.mode) == ("PNG", "RGB")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--tags", "zebra"), "'zebra' is no class of this network"),
        (("--palette", "rainbow"), "no palette 'rainbow'"),
    ],
)
def test_bad_input_is_named(
    wsss: Callable[..., Any], run: Path, scenes: Path, tmp_path: Path, changed: tuple[str, ...], said: str
) -> None:
    image = next((scenes / "images").glob("val_*"))
    done = wsss("show", image, "--run", run, "-o", tmp_path / "sheet.png", "--device", "cpu", *changed)
    assert done.status == 2
    assert said in done.err
    assert not (tmp_path / "sheet.png").exists()


def test_what_is_no_image_is_named(wsss: Callable[..., Any], run: Path, tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("no image")
    for image in (tmp_path / "note.jpg", tmp_path / "nowhere.jpg"):
        done = wsss("show", image, "--run", run, "-o", tmp_path / "sheet.png", "--device", "cpu")
        assert done.status == 3, done.err
        assert str(image) in done.err
