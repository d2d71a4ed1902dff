"""``wsss export`` and ``wsss predict --onnx``: what is refused at the door, and the whole way on a small run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsss.cli.export import parse_sizes
from wsss.errors import UsageError
from wsss.models.checkpoint import save_checkpoint

Program = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, small_network: Any, tiny_config: Any) -> Path:
    (tmp_path / "seg").mkdir()
    save_checkpoint(tmp_path / "seg" / "last.pt", small_network(), tiny_config())
    return tmp_path / "seg"


def test_sizes() -> None:
    assert parse_sizes(None) == []
    assert parse_sizes("224x320, 32x48") == [(224, 320), (32, 48)]
    for text in ("", "224", "224x", "0x32", "-1x32", "3.5x2", "32x48,"):
        with pytest.raises(UsageError, match="ROWSxCOLUMNS"):
            parse_sizes(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to export"),
        (["--int8", "--pt2", "a.pt2"], "--int8 is a kind of ONNX file"),
        (["--safetensors", "a.safetensors", "--data", "photos"], "--data compares ONNX files"),
        (["--onnx", "a.onnx", "--sizes", "32x32", "--data", "photos"], "--data compares ONNX files"),
        (["--onnx", "a.onnx", "--sizes", "4x32"], "less than a patch of 8 x 8"),
    ],
)
def test_refused(
    wsss: Program, run: Path, words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = wsss("export", run, *words)
    assert result.status == 2
    assert said in result.error()[0]
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_existing_files_are_kept(wsss: Program, run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("mine")
    result = wsss("export", run, "--safetensors", tmp_path / "a.safetensors")
    assert result.status == 2
    assert "a.md exists" in result.error()[0]
    assert wsss("export", run, "--safetensors", tmp_path / "a.safetensors", "--overwrite").status == 0
    assert "# Segmentation of bee, ladybird" in (tmp_path / "a.md").read_text()


def test_images_alone_beside_onnx(wsss: Program, run: Path, tmp_path: Path) -> None:
    result = wsss("predict", run, "photos", "--onnx", "a.onnx", "-o", tmp_path / "out")
    assert result.status == 2
    assert "takes images alone" in result.error()[0]
    assert wsss("predict", run, "-o", tmp_path / "out").error()[0] == "no images were named"


@pytest.mark.slow
def test_the_whole_way(wsss: Program, run: Path, scenes: Path, tmp_path: Path) -> None:
    done = wsss("export", run, "--onnx", tmp_path / "m.onnx", "--int8", "--data", scenes, "--split", "val", "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert [one["kind"] for one in told["files"]] == ["onnx int8"]
    (figures,) = told["compared"].values()
    assert figures["masks"] == 8
    assert "## Licence of the weights" in (tmp_path / "m.md").read_text()
    words = ("predict", "--onnx", tmp_path / "m.onnx", scenes, "--split", "val", "-o", tmp_path / "masks")
    assert wsss(*words).out.strip() == str(tmp_path / "masks")
    assert len(list((tmp_path / "masks" / "labels").glob("*.png"))) == 8
    assert "0 masks made, 8 there already" in wsss(*words).err
    fixed = wsss("export", run, "--onnx", tmp_path / "f.onnx", "--pt2", tmp_path / "f.pt2", "--sizes", "32x48,40x40")
    names = ("f-32x48.onnx", "f-40x40.onnx", "f-32x48.pt2", "f-40x40.pt2")
    assert fixed.out.split() == [str(tmp_path / name) for name in names]
    refused = wsss("predict", "--onnx", tmp_path / "f-32x48.onnx", scenes, "-o", tmp_path / "other")
    assert "32 x 48 (rows x columns) alone" in refused.error()[0]
