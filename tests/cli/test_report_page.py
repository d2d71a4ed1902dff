"""`wsss report` on the command line, and the report that train-seg writes when it is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wsss.cli.running import report_on
from wsss.data.dataset import open_data
from wsss.data.masks import read_mask, write_mask

Wsss = Callable[..., Any]


@pytest.fixture
def labels(scenes: Path, tmp_path: Path) -> Path:
    """The true label maps of the validation split, as a folder of make-pseudo."""
    tagged, out = open_data(scenes, split="val"), tmp_path / "labels"
    for record in tagged.records:
        path = tagged.mask_path(record)
        assert path is not None
        write_mask(out / "labels" / f"{record.name}.png", read_mask(path))
    facts = {"wsss": "test", "kind": "pseudo", "classes": list(tagged.classes), "split": "val"}
    (out / "manifest.json").write_text(json.dumps(facts | {"choices": {"data": str(scenes)}}))
    return out


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """What a training leaves, without its checkpoints."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"classes": ["bee"], "split": "train", "images": 24}))
    (run / "config.yaml").write_text("run: {seed: 1}\n")
    (run / "metrics.jsonl").write_text(json.dumps({"step": 10, "loss": 2.0}) + "\n")
    return run


def test_it_prints_its_path_or_what_it_wrote(wsss: Wsss, labels: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = wsss("report", labels, "-o", page)
    assert (done.status, done.out) == (0, f"{page}\n")
    done = wsss("report", labels, "-o", page, "--no-score", "--limit", 3, "--palette", "colorblind", "--json")
    written = json.loads(done.out)
    assert written == {"output": str(page), "bytes": page.stat().st_size, "scored": 0, "images": 3}
    assert "[0, 114, 178]" in page.read_text("utf-8")  # 0072b2, the first colour of that palette
    assert wsss("report", labels, "-o", page, "--limit", 0).status == 0
    assert "Gallery" not in page.read_text("utf-8")


def test_a_folder_of_something_else(wsss: Wsss, scenes: Path, tmp_path: Path) -> None:
    done = wsss("report", scenes, "-o", tmp_path / "page.html")
    assert done.status == 3
    assert "neither a run" in done.error()[0]
    assert not (tmp_path / "page.html").exists()


def test_the_report_of_a_training(finished: Path, labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_on(finished, labels)
    text = (finished / "report.html").read_text("utf-8")
    assert "8 of 8 images" in text
    assert "not scored: it was not asked for" in text
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("error", [ValueError("odd"), OSError(28, "No space left on device")])
def test_a_report_that_fails_is_a_warning(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("wsss.report.page.write_page", fail)
    report_on(finished, None)
    said = " ".join(capsys.readouterr().err.split())
    assert f"the run is complete, but has no report: {type(error).__name__}" in said
