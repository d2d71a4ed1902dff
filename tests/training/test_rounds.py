"""A run of two rounds: its teacher, the teacher's labels, and the training on these labels."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wsss.errors import Interrupted, MachineError
from wsss.files import DiskError
from wsss.models.checkpoint import load_network
from wsss.outputs.manifest import read_manifest
from wsss.reporting import Silent
from wsss.training import rounds
from wsss.training.loop import Loop
from wsss.training.start import Moved, resume_segmenter, train_classifier, train_segmenter

QUIET = Silent()


def weights(run: Path) -> dict[str, Tensor]:
    return load_network(run)[0].state_dict()


def assert_same(one: Path, other: Path) -> None:
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=0)


@pytest.fixture
def classifier(tmp_path: Path, tiny_config: Any) -> Path:
    train_classifier(tiny_config(classify__epochs=1), tmp_path / "cls", QUIET)
    return tmp_path / "cls"


def test_a_run_with_a_teacher_equals_its_three_commands(tmp_path: Path, tiny_config: Any, classifier: Path) -> None:
    """Training end to end, labelling and training on the labels give the same weights and label maps."""
    config = tiny_config(segment__rounds=2, segment__epochs=1)
    train_segmenter(config, tmp_path / "taught", QUIET, init=classifier)
    alone = tiny_config(segment__epochs=1)
    train_segmenter(alone, tmp_path / "first", QUIET, init=classifier)
    assert_same(tmp_path / "taught" / "teacher", tmp_path / "first")
    assert read_manifest(tmp_path / "taught" / "labels")["split"] == "train"
    train_segmenter(alone, tmp_path / "second", QUIET, init=classifier, labels=tmp_path / "taught" / "labels")
    assert_same(tmp_path / "taught", tmp_path / "second")
    difference = [
        (weights(tmp_path / "taught")[name] - value).abs().max() for name, value in weights(tmp_path / "first").items()
    ]
    assert max(difference) > 0


def test_three_rounds_nest(tmp_path: Path, tiny_config: Any) -> None:
    train_segmenter(tiny_config(segment__rounds=3, segment__epochs=1), tmp_path / "run", QUIET)
    inner = tmp_path / "run" / "teacher" / "teacher"
    assert (inner / "last.pt").is_file()
    assert not (inner / "teacher").exists()
    assert not (inner / "labels").exists()
    for run in (tmp_path / "run", tmp_path / "run" / "teacher"):
        assert len(list((run / "labels" / "labels").glob("*.png"))) == 24


@pytest.mark.parametrize("stage", ["teacher", "labels", "student"])
def test_a_stopped_run_resumes_to_the_same_weights(
    stage: str, tmp_path: Path, tiny_config: Any, classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(segment__rounds=2, segment__epochs=1)
    train_segmenter(config, tmp_path / "whole", QUIET, init=classifier)
    run = tmp_path / "cut"

    def leave(*_: object, **__: object) -> Any:
        raise Interrupted("stopped by SIGTERM", "--resume somewhere")

    with monkeypatch.context() as patched:
        patched.setattr(*stop_at(stage, leave))
        with pytest.raises(Interrupted) as caught:
            train_segmenter(config, run, QUIET, init=classifier)
    assert stage == "student" or caught.value.fix == f"--resume {run}"
    resume_segmenter(run, QUIET)
    assert_same(run, tmp_path / "whole")


@pytest.mark.parametrize("stage", ["teacher", "labels", "student"])
def test_a_stopped_run_resumes_where_its_data_were_moved(
    stage: str, tmp_path: Path, tiny_config: Any, classifier: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its teacher too; a second --resume needs no --data, whichever part was stopped again."""
    data, run = tmp_path / "data", tmp_path / "cut"
    shutil.copytree(scenes, data)
    config = tiny_config(segment__rounds=2, segment__epochs=1, data__root=data)
    train_segmenter(config, tmp_path / "whole", QUIET, init=classifier)

    def leave(*_: object, **__: object) -> Any:
        raise Interrupted("stopped by SIGTERM", "--resume somewhere")

    with monkeypatch.context() as patched:
        patched.setattr(*stop_at(stage, leave))
        with pytest.raises(Interrupted):
            train_segmenter(config, run, QUIET, init=classifier)
        data.rename(tmp_path / "elsewhere")
        with pytest.raises(Interrupted):
            resume_segmenter(run, QUIET, Moved(root=tmp_path / "elsewhere"))
    resume_segmenter(run, QUIET)
    assert_same(run, tmp_path / "whole")


@pytest.mark.parametrize("stage", ["teacher", "labels", "student"])
def test_a_full_disk_names_the_run_to_resume(
    stage: str, tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fix names the user's run, not its teacher, in whichever part the disk was full."""
    run = tmp_path / "run"

    def refuse(*_: object, **__: object) -> Any:
        raise DiskError(run / "file", OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(*stop_at(stage, refuse))
    with pytest.raises(MachineError) as caught:
        train_segmenter(tiny_config(segment__rounds=2, segment__epochs=1), run, QUIET)
    assert caught.value.fix.endswith(f", then --resume {run}")


def stop_at(stage: str, leave: Callable[..., Any]) -> tuple[Any, str, Callable[..., Any]]:
    """What to replace so that a run ends in its teacher's second step, at its labels or in its own second step."""
    if stage == "labels":
        return rounds, "make_pseudo_labels", leave
    step = Loop._step

    def stopped(self: Any, batch: Any) -> None:
        if self.state.step == 1 and (self.run.name == "teacher") == (stage == "teacher"):
            self.save()
            leave()
        step(self, batch)

    return Loop, "_step", stopped


def test_labels_from_disk_need_no_teacher(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    config = tiny_config(segment__rounds=2, segment__epochs=1)
    train_segmenter(config, tmp_path / "run", QUIET, labels=scenes / "masks")
    assert not (tmp_path / "run" / "teacher").exists()
    assert not (tmp_path / "run" / "labels").exists()


def test_saliency_teaches_in_every_round(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    """Saliency maps are used for the labels of the teacher and in the loss of the student."""
    import json

    from PIL import Image

    from wsss.data.dataset import open_data

    (tmp_path / "saliency").mkdir()
    for record in open_data(scenes, split="train").records:
        with Image.open(record.image) as image:
            image.convert("L").save(tmp_path / "saliency" / f"{record.name}.png")
    config = tiny_config(segment__rounds=2, segment__epochs=1, data__saliency=tmp_path / "saliency")
    train_segmenter(config, tmp_path / "run", QUIET)
    assert read_manifest(tmp_path / "run" / "labels")["saliency"] is True
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any("saliency" in row for row in rows)
