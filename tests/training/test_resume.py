"""A run that was stopped anywhere and resumed ends bit for bit as one that was never stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wsss.config import Config, DataSection, to_yaml
from wsss.data.dataset import open_data
from wsss.data.images import read_image
from wsss.data.masks import read_mask, write_mask
from wsss.data.records import Record, TaggedSet
from wsss.errors import DataError, Interrupted, UsageError
from wsss.inference import score
from wsss.models import checkpoint
from wsss.models.checkpoint import read_checkpoint
from wsss.outputs.run import data_facts
from wsss.reporting import Silent
from wsss.training import loop, optimiser, start
from wsss.training.classify import ClassifyStep
from wsss.training.segment import SegmentStep
from wsss.training.start import Moved, resume_classifier, resume_segmenter, train_classifier, train_segmenter

QUIET = Silent()
Stop = Callable[[], None]


@pytest.fixture(autouse=True)
def log_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 1)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def crash() -> None:
    raise RuntimeError("power cut")


def stop_at(monkeypatch: pytest.MonkeyPatch, kind: Any, step: int, how: Stop) -> None:
    """Call ``how`` inside the given step, once."""
    plain, done = kind.forward, []

    def forward(self: Any, batch: Any, at: int) -> dict[str, Tensor]:
        if at == step and not done:
            done.append(True)
            how()
        terms: dict[str, Tensor] = plain(self, batch, at)
        return terms

    monkeypatch.setattr(kind, "forward", forward)


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def train_rows(run: Path) -> list[dict[str, Any]]:
    return [row for row in rows(run) if "split" not in row]


def timeless(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows(run)]


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Values of a nested checkpoint by their path."""
    if isinstance(value, dict):
        return {key: leaf for name, item in value.items() for key, leaf in leaves(item, f"{path}/{name}").items()}
    if isinstance(value, list | tuple):
        return {key: leaf for i, item in enumerate(value) for key, leaf in leaves(item, f"{path}/{i}").items()}
    return {path: value}


def assert_same_checkpoints(first: Path, second: Path) -> None:
    """Check that weights, moving average, optimiser, step and best figure are equal bit for bit."""
    ours, theirs = leaves(read_checkpoint(first / "last.pt")), leaves(read_checkpoint(second / "last.pt"))
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        same = torch.equal(value, theirs[key]) if isinstance(value, Tensor) else value == theirs[key]
        assert same, key


def steps(run: Path) -> list[int]:
    return [row["step"] for row in train_rows(run)]


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_classifier_stopped_by_a_signal(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    config = tiny_config(classify__ema=0.9, model__drop_path=0.2)
    train_classifier(config, tmp_path / "whole", QUIET)
    stop_at(monkeypatch, ClassifyStep, step, terminate)
    with pytest.raises(Interrupted, match=f"stopped by SIGTERM after step {step + 1} of 6") as caught:
        train_classifier(config, tmp_path / "cut", QUIET)  # after the last step, only the validation is missing
    assert caught.value.fix == f"--resume {tmp_path / 'cut'}"
    assert read_checkpoint(tmp_path / "cut" / "last.pt")["training"]["step"] == step + 1
    resume_classifier(tmp_path / "cut", QUIET)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")
    assert steps(tmp_path / "cut") == [1, 2, 3, 4, 5, 6]
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_metrics_after_the_last_checkpoint_of_a_crash_are_removed(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(classify__optimizer="sgd-poly", classify__epochs=3, classify__checkpoint_minutes=1e-9)
    train_classifier(config, tmp_path / "whole", QUIET)
    stop_at(monkeypatch, ClassifyStep, 8, crash)
    with pytest.raises(RuntimeError, match="power cut"):
        train_classifier(config, tmp_path / "cut", QUIET)
    assert read_checkpoint(tmp_path / "cut" / "last.pt")["training"]["step"] == 8
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "los')  # and the disk had half a line
    resume_classifier(tmp_path / "cut", QUIET)
    assert steps(tmp_path / "cut") == [*range(1, 10)]
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")


@pytest.mark.parametrize("optimizer", ["adamw", "sgd-poly"])
def test_end_to_end_stopped_in_either_phase(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    config = tiny_config(
        segment__ema=0.8, segment__optimizer=optimizer, segment__lr_seg_factor=0.5, segment__weight_energy=1e-4
    )
    train_segmenter(config, tmp_path / "whole", QUIET)
    step = 1 if optimizer == "adamw" else 4
    stop_at(monkeypatch, SegmentStep, step, terminate)
    with pytest.raises(Interrupted):
        train_segmenter(config, tmp_path / "cut", QUIET)
    resume_segmenter(tmp_path / "cut", QUIET)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")
    assert ["segmentation" in row for row in train_rows(tmp_path / "cut")] == [False] * 3 + [True] * 3
    assert {"mean_iou", "pixel_accuracy"} < rows(tmp_path / "cut")[-1].keys()
    assert (tmp_path / "cut" / "best.pt").is_file()


def test_a_resumed_segmenter_keeps_its_label_folders(
    tmp_path: Path, tiny_config: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for record in open_data(scenes, split="train").records:
        mask = scenes / "masks" / f"{record.name}.png"
        (tmp_path / "labels").mkdir(exist_ok=True)
        shutil.copy(mask, tmp_path / "labels")
    config = tiny_config(segment__epochs=1)
    train_segmenter(config, tmp_path / "whole", QUIET, labels=tmp_path)
    stop_at(monkeypatch, SegmentStep, 0, terminate)
    with pytest.raises(Interrupted):
        train_segmenter(config, tmp_path / "cut", QUIET, labels=tmp_path)
    assert read_checkpoint(tmp_path / "cut" / "last.pt")["task"] == {
        "labels": str(tmp_path / "labels"),
        "started": False,
        "taught": False,
        "init": None,
        "true_masks": False,
        "corrected": None,
    }
    resume_segmenter(tmp_path / "cut", QUIET)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")


def test_a_segmenter_started_from_a_classifier_never_only_classifies(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(classify__epochs=1, segment__epochs=1)
    learnt = train_classifier(config, tmp_path / "cls", QUIET)
    stop_at(monkeypatch, SegmentStep, 1, terminate)
    with pytest.raises(Interrupted):
        train_segmenter(config, tmp_path / "seg", QUIET, init=tmp_path / "cls")
    resumed = resume_segmenter(tmp_path / "seg", QUIET)
    assert all("segmentation" in row for row in train_rows(tmp_path / "seg"))
    start = read_checkpoint(tmp_path / "cls" / "last.pt")["network"]["readout.head.weight"]
    assert torch.equal(start, learnt.readout.head.weight)
    assert resumed.classes == ("bee", "ladybird")


@pytest.mark.parametrize("reaches_loader", [False, True])
@pytest.mark.parametrize("section", ["classify", "segment"])
def test_stopped_during_a_validation(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch, section: str, reaches_loader: bool
) -> None:
    """The steps of the epoch are saved, the validation ends before its next batch, and the resumed run repeats it.

    Batch systems send SIGTERM to the loader processes too, which ends them at once.
    """
    train, resume = {
        "classify": (train_classifier, resume_classifier),
        "segment": (train_segmenter, resume_segmenter),
    }[section]
    config = tiny_config(**{f"{section}__batch_size": 4, f"{section}__ema": 0.9})
    train(config, tmp_path / "whole", QUIET)
    batches: list[int] = []
    plain = score.load_batches

    def load(*given: Any) -> Any:
        for batch in plain(*given):
            if len(batches) == 1:
                terminate()
                if reaches_loader:
                    raise Interrupted("stopped: a loader process got SIGTERM", "run the same command again")
            batches.append(1)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(score, "load_batches", load)
        with pytest.raises(Interrupted, match="stopped by SIGTERM after step 6 of 12"):
            train(config, tmp_path / "cut", QUIET)
    assert len(batches) == (1 if reaches_loader else 2)
    training = read_checkpoint(tmp_path / "cut" / "last.pt")["training"]
    assert (training["step"], training["validated"]) == (6, -1)
    assert steps(tmp_path / "cut") == [*range(1, 7)]
    resume(tmp_path / "cut", QUIET)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")


def test_killed_between_a_validation_and_the_last_checkpoint(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metrics of the validation are removed and written again."""
    config = tiny_config(classify__epochs=1)
    train_classifier(config, tmp_path / "whole", QUIET)
    plain = loop.save_last

    def save(*given: Any) -> None:
        if given[-1].validated > 0:
            crash()
        plain(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_last", save)
        with pytest.raises(RuntimeError, match="power cut"):
            train_classifier(config, tmp_path / "cut", QUIET)
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")
    resume_classifier(tmp_path / "cut", QUIET)
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")


KEYS = {
    "best",
    "window/sums",
    "window/since",
    "window/skipped",
    "window/in_a_row",
    "optimizer/state",
    "optimizer/param_groups",
    "scaler",
    "step",
}


@pytest.mark.parametrize("kind", ["adamw", "sgd-poly"])
def test_a_checkpoint_of_an_earlier_version_resumes(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It has other optimiser groups, with weight decay on position embeddings and tokens, and no key "validated"."""
    config = tiny_config(segment__ema=0.9, segment__optimizer=kind, segment__weight_decay=0.1)
    grouped = optimiser.parameter_groups

    def earlier(*given: Any, by_dimension: bool = False, **how: Any) -> Any:
        return grouped(*given, by_dimension=True, **how)

    with monkeypatch.context() as patch:
        patch.setattr(optimiser, "parameter_groups", earlier)
        train_segmenter(config, tmp_path / "whole", QUIET)
        stop_at(patch, SegmentStep, 3, terminate)
        with pytest.raises(Interrupted):
            train_segmenter(config, tmp_path / "cut", QUIET)
    content = read_checkpoint(tmp_path / "cut" / "last.pt")
    training = content["training"]
    assert training.pop("validated") == 3
    assert training.keys() == {key.split("/")[0] for key in KEYS} | {"network", "averaged"}
    assert {f"window/{key}" for key in training["window"]} == {key for key in KEYS if key.startswith("window")}
    torch.save(content, tmp_path / "cut" / "last.pt")
    resume_segmenter(tmp_path / "cut", QUIET)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")
    groups = read_checkpoint(tmp_path / "cut" / "last.pt")["training"]["optimizer"]["param_groups"]
    assert not any("decay_rule" in group for group in groups)


@pytest.mark.parametrize("section", ["classify", "segment"])
def test_a_resume_reads_its_checkpoint_once(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    train, resume = {
        "classify": (train_classifier, resume_classifier),
        "segment": (train_segmenter, resume_segmenter),
    }[section]
    train(tiny_config(**{f"{section}__epochs": 1}), tmp_path / "run", QUIET)
    read: list[Path] = []
    plain = checkpoint.read_archive

    def note(path: Path, check: Any) -> Any:
        read.append(path)
        return plain(path, check)

    monkeypatch.setattr(checkpoint, "read_archive", note)
    resume(tmp_path / "run", QUIET)
    assert read == [tmp_path / "run" / "last.pt"]


def test_a_finished_run_is_left_as_it_is(tmp_path: Path, tiny_config: Any) -> None:
    train_classifier(tiny_config(classify__epochs=1), tmp_path / "run", QUIET)
    before = (tmp_path / "run" / "last.pt").read_bytes(), (tmp_path / "run" / "metrics.jsonl").read_bytes()
    resume_classifier(tmp_path / "run", QUIET)
    assert before == ((tmp_path / "run" / "last.pt").read_bytes(), (tmp_path / "run" / "metrics.jsonl").read_bytes())


@pytest.fixture
def begun(tmp_path: Path, tiny_config: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A copy of the scenes, one image of which is broken, and a run on it that was stopped in its first epoch."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(scenes, data)
    image_of(data, 7).write_bytes(b"broken")
    stop_at(monkeypatch, ClassifyStep, 0, terminate)
    with pytest.raises(Interrupted):
        train_classifier(tiny_config(data__root=data, data__bad_limit=0.1, classify__batch_size=4), run, QUIET)
    return data, run


def image_of(data: Path, index: int) -> Path:
    return data / "images" / f"train_{index:05}.jpg"


def rewrite(data: Path, index: int, old: str, new: str) -> None:
    """Change the line of an image in the table."""
    table = data / "tags.csv"
    line = next(line for line in table.read_text().splitlines() if line.startswith(image_of(data, index).name))
    assert old in line
    table.write_text(table.read_text().replace(line, line.replace(old, new)))


def rename(data: Path) -> None:
    rewrite(data, 3, "train_00003", "train_00003b")
    image_of(data, 3).rename(data / "images" / "train_00003b.jpg")


def shuffle(data: Path) -> None:
    first, *lines = (data / "tags.csv").read_text().splitlines()
    (data / "tags.csv").write_text("\n".join([first, *lines[::-1]]) + "\n")


def retag(data: Path) -> None:
    rewrite(data, 3, ",bee", ",ladybird")


def edit(data: Path) -> None:
    """Other pixels in a file of the same size."""
    path = image_of(data, 3)
    before = read_image(path)
    content = path.read_bytes()
    for place in range(len(content) - 40, 0, -1):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        if (read_image(path) != before).any():
            return
    raise AssertionError("nothing changed")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "repaired": (
        lambda data: shutil.copy(image_of(data, 8), image_of(data, 7)),
        "it began with 23 readable images, there are 24",
    ),
    "broken": (
        lambda data: image_of(data, 8).write_bytes(b"broken"),
        "it began with 23 readable images, there are 22",
    ),
    "moved to another split": (
        lambda data: rewrite(data, 3, ",train", ",val"),
        "it began with 23 readable images, there are 22",
    ),
    "split": (lambda data: rewrite(data, 3, ",train", ",train_aug"), "it began on split train"),
    "renamed": (rename, "these are other images, or in another order"),
    "shuffled": (shuffle, "these are other images, or in another order"),
    "tagged": (retag, "the tags have changed"),
    "replaced": (lambda data: shutil.copy(image_of(data, 8), image_of(data, 3)), "the image files have changed"),
    "edited": (edit, "the image files have changed"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_a_run_does_not_resume_on_other_data(
    begun: tuple[Path, Path], change: Callable[[Path], object], said: str
) -> None:
    data, run = begun
    before = (run / "last.pt").read_bytes()
    change(data)
    with pytest.raises(DataError) as caught:
        resume_classifier(run, QUIET)
    split = "train_aug" if "split" in said else "train"
    assert caught.value.problem == f"{run} cannot be resumed on split {split} of {data}: {said}"
    assert caught.value.fix == f"--resume {run}  # once {data} is as it was; or train anew, with another -o"
    assert (run / "last.pt").read_bytes() == before


def make_earlier(data: Path, run: Path, *missing: str) -> None:
    """Rewrite ``run.json`` as an earlier version did, with a hash of file sizes instead of bytes."""
    facts = json.loads((run / "run.json").read_text())
    train = open_data(data, split="train")
    sizes = hashlib.sha256("\n".join(train.classes).encode())
    for record in train.records:
        if record.image != image_of(data, 7):  # the broken image
            sizes.update(f"\n{record.name} {record.tags} {record.image.stat().st_size}".encode())
    earlier = {key: value for key, value in facts.items() if key not in ("content_sha256", *missing)}
    (run / "run.json").write_text(json.dumps({**earlier, "data_sha256": sizes.hexdigest()}))


def test_a_run_of_an_earlier_version_is_checked_too(begun: tuple[Path, Path]) -> None:
    data, run = begun
    make_earlier(data, run, "names_sha256", "tags_sha256")
    retag(data)
    with pytest.raises(DataError, match="the images or their tags have changed"):
        resume_classifier(run, QUIET)


def test_a_run_of_an_earlier_version_is_checked_by_the_sizes_of_its_files(begun: tuple[Path, Path]) -> None:
    data, run = begun
    make_earlier(data, run)
    shutil.copy(image_of(data, 8), image_of(data, 3))
    with pytest.raises(DataError, match="the image files have changed"):
        resume_classifier(run, QUIET)


def test_a_run_of_an_earlier_version_resumes(begun: tuple[Path, Path]) -> None:
    data, run = begun
    make_earlier(data, run)
    resume_classifier(run, QUIET)
    assert steps(run) == [*range(1, 11)]


def test_a_digest_that_the_index_knows_is_not_computed(tmp_path: Path) -> None:
    """The image does not exist."""

    def content_of(digest: str) -> object:
        record = Record(name="a", image=tmp_path / "none.jpg", tags=(0,), digest=digest)
        tagged = TaggedSet(root=tmp_path, split="train", classes=("bee",), records=(record,))
        return data_facts(tagged)["content_sha256"]

    assert content_of("0d" * 16) == content_of("0d" * 16) != content_of("0e" * 16)


@pytest.mark.parametrize("content", ["{", "[]", "\udcff"])
def test_a_broken_run_file_is_named(begun: tuple[Path, Path], content: str) -> None:
    _, run = begun
    (run / "run.json").write_text(content, errors="surrogateescape")
    with pytest.raises(DataError, match=r"run\.json: ") as caught:
        resume_classifier(run, QUIET)
    assert caught.value.fix.startswith(f"rm {run / 'run.json'}")


@pytest.mark.parametrize("known", [True, False])
def test_a_run_resumes_on_the_same_data_elsewhere(begun: tuple[Path, Path], known: bool) -> None:
    """A copy of the data at the same path; the broken image is left out again. Without run.json nothing is checked."""
    data, run = begun
    shutil.copytree(data, data.with_name("copy"))
    shutil.rmtree(data)
    data.symlink_to(data.with_name("copy"))
    if not known:
        (run / "run.json").unlink()
        retag(data)
    resume_classifier(run, QUIET)
    assert steps(run) == [*range(1, 11)]


def test_a_run_resumes_where_its_data_were_moved(
    begun: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights as without the move; from then on the run knows the new place."""
    data, run = begun
    shutil.copytree(run, tmp_path / "whole")
    resume_classifier(tmp_path / "whole", QUIET)
    data.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError) as caught:
        resume_classifier(run, QUIET)
    assert caught.value.problem == f"{data}: no such data folder; {run} began with it"
    assert caught.value.fix == f"--resume {run} --data DIR  # where it lies now"
    monkeypatch.chdir(tmp_path)
    stop_at(monkeypatch, ClassifyStep, 5, terminate)
    with pytest.raises(Interrupted):
        resume_classifier(run, QUIET, Moved(root=Path("elsewhere")))
    assert f"root: {tmp_path / 'elsewhere'}\n" in (run / "config.yaml").read_text()
    assert json.loads((run / "run.json").read_text())["resumed"][0]["choices"]["data"] == str(tmp_path / "elsewhere")
    resume_classifier(run, QUIET)
    assert len(json.loads((run / "run.json").read_text())["resumed"]) == 1
    ours, theirs = (leaves(read_checkpoint(folder / "last.pt")) for folder in (run, tmp_path / "whole"))
    different = [
        key
        for key, value in ours.items()
        if not (torch.equal(value, theirs[key]) if isinstance(value, Tensor) else value == theirs[key])
    ]
    assert different == ["/config/data/root"]
    assert timeless(run) == timeless(tmp_path / "whole")


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_a_run_does_not_resume_on_other_data_elsewhere(
    begun: tuple[Path, Path], tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    data, run = begun
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    shutil.copytree(data, tmp_path / "elsewhere")
    change(tmp_path / "elsewhere")
    with pytest.raises(DataError) as caught:
        resume_classifier(run, QUIET, Moved(root=tmp_path / "elsewhere"))
    assert caught.value.problem.endswith(f" of {tmp_path / 'elsewhere'}: {said}")
    assert caught.value.fix.startswith(f"--resume {run} --data DIR")
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    resume_classifier(run, QUIET)


def test_a_changed_validation_split_is_refused(begun: tuple[Path, Path]) -> None:
    """Its figures choose the best checkpoint."""
    data, run = begun
    table = (data / "tags.csv").read_text()
    (data / "tags.csv").write_text(table.replace(",val\n", ",test\n"))
    with pytest.raises(DataError, match="its validation split was val, now it is none"):
        resume_classifier(run, QUIET)
    (data / "tags.csv").write_text(table)
    shutil.copy(data / "images" / "val_00001.jpg", data / "images" / "val_00002.jpg")
    with pytest.raises(DataError, match="the images or tags of split val have changed"):
        resume_classifier(run, QUIET)


@pytest.mark.parametrize("missing", ["run.json", "content_sha256"])
def test_data_elsewhere_are_refused_where_nothing_can_be_compared(begun: tuple[Path, Path], missing: str) -> None:
    data, run = begun
    if missing == "run.json":
        (run / "run.json").unlink()
    else:
        make_earlier(data, run)
    shutil.copytree(data, data.parent / "elsewhere")
    with pytest.raises(DataError, match=f"has no {missing}, so the files cannot be compared"):
        resume_classifier(run, QUIET, Moved(root=data.parent / "elsewhere"))


def test_tables_and_saliency_below_the_data_move_with_them(tmp_path: Path) -> None:
    def of(**paths: str) -> Config:
        return Config().model_copy(update={"data": DataSection(**{name: Path(path) for name, path in paths.items()})})

    config = of(root="/a/data", tags="/a/data/tables/t.csv", saliency="/b/saliency")
    moved = config.moved({"root": Path("/c"), "tags": None, "saliency": None})
    assert moved == of(root="/c", tags="/c/tables/t.csv", saliency="/b/saliency")
    moved = config.moved({"root": Path("/c"), "tags": Path("/t.csv"), "saliency": Path("/s")})
    assert moved == of(root="/c", tags="/t.csv", saliency="/s")
    assert config.moved({"root": None}) == config


@pytest.fixture
def labels(tmp_path: Path, scenes: Path) -> Path:
    """Label maps of the training scenes: their masks."""
    folder = tmp_path / "labels"
    folder.mkdir()
    for path in (scenes / "masks").glob("train_*.png"):
        shutil.copy(path, folder)
    return folder


def test_a_run_resumes_where_its_labels_were_moved(
    tmp_path: Path, tiny_config: Any, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stop_at(monkeypatch, SegmentStep, 1, terminate)
    with pytest.raises(Interrupted):
        train_segmenter(tiny_config(), run, QUIET, labels=labels)
    labels.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError) as caught:
        resume_segmenter(run, QUIET)
    assert caught.value.fix == f"--resume {run} --labels DIR  # where it lies now"
    map_HW = read_mask(tmp_path / "elsewhere" / "train_00003.png")
    write_mask(tmp_path / "elsewhere" / "train_00003.png", np.zeros_like(map_HW))
    with pytest.raises(DataError, match="the label maps have changed"):
        resume_segmenter(run, QUIET, Moved(labels=tmp_path / "elsewhere"))
    write_mask(tmp_path / "elsewhere" / "train_00003.png", map_HW)
    resume_segmenter(run, QUIET, Moved(labels=tmp_path / "elsewhere"))
    assert read_checkpoint(run / "last.pt")["task"]["labels"] == str(tmp_path / "elsewhere")
    assert steps(run) == [1, 2, 3, 4, 5, 6]


def test_a_run_that_makes_its_own_labels_takes_none(tmp_path: Path, tiny_config: Any, labels: Path) -> None:
    train_segmenter(tiny_config(segment__epochs=1), tmp_path / "run", QUIET)
    with pytest.raises(UsageError, match="makes its own labels, it takes no --labels"):
        resume_segmenter(tmp_path / "run", QUIET, Moved(labels=labels))


def test_changed_saliency_maps_are_refused(
    tmp_path: Path, tiny_config: Any, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    stop_at(monkeypatch, SegmentStep, 1, terminate)
    with pytest.raises(Interrupted):
        train_segmenter(tiny_config(data__saliency=labels), run, QUIET)
    shutil.copytree(labels, tmp_path / "copy")
    write_mask(labels / "train_00003.png", np.zeros_like(read_mask(labels / "train_00003.png")))
    with pytest.raises(DataError, match="the saliency maps have changed"):
        resume_segmenter(run, QUIET)
    resume_segmenter(run, QUIET, Moved(saliency=tmp_path / "copy"))
    assert read_checkpoint(run / "last.pt")["config"]["data"]["saliency"] == str(tmp_path / "copy")


def test_what_cannot_be_resumed(tmp_path: Path, tiny_config: Any) -> None:
    run = tmp_path / "run"
    train_classifier(tiny_config(classify__epochs=1), run, QUIET)
    with pytest.raises(UsageError, match="trains a classifier") as caught:
        resume_segmenter(run, QUIET)
    assert caught.value.fix == f"wsss train-cls --resume {run}"
    with pytest.raises(UsageError, match="expected the folder of a run, got a file") as caught:
        resume_classifier(run / "last.pt", QUIET)
    assert caught.value.fix == f"--resume {run}"
    with pytest.raises(DataError, match="no such run"):
        resume_classifier(tmp_path / "none", QUIET)
    (run / "last.pt").unlink()
    with pytest.raises(DataError, match="has no last checkpoint: it has best"):
        resume_classifier(run, QUIET)


def test_a_run_folder_says_how_it_was_made(tmp_path: Path, tiny_config: Any) -> None:
    config: Config = tiny_config(classify__epochs=1)
    run = tmp_path / "deep" / "run"
    train_classifier(config, run, QUIET)
    assert {file.name for file in run.iterdir()} == {"config.yaml", "run.json", "metrics.jsonl", "last.pt", "best.pt"}
    assert (run / "config.yaml").read_text() == to_yaml(config)
    facts = json.loads((run / "run.json").read_text())
    assert facts["classes"] == ["bee", "ladybird"]
    assert (facts["split"], facts["images"]) == ("train", 24)
    assert len(facts["content_sha256"]) == 64
    assert {"wsss", "torch", "timm", "python"} <= facts["versions"].keys()


def test_the_seed_decides(tmp_path: Path, tiny_config: Any) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_classifier(tiny_config(classify__epochs=1, run__seed=seed), tmp_path / name, QUIET)
    assert_same_checkpoints(tmp_path / "a", tmp_path / "b")
    first, other = (read_checkpoint(tmp_path / name / "last.pt")["network"] for name in ("a", "c"))
    assert not torch.equal(first["readout.head.weight"], other["readout.head.weight"])


def test_training_never_opens_a_mask(
    tmp_path: Path, tiny_config: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are the same when the mask folder is deleted, also end to end."""
    root = tmp_path / "bare"
    shutil.copytree(scenes, root, ignore=shutil.ignore_patterns("masks"))
    for name, data in (("with", scenes), ("without", root)):
        config = tiny_config(data__root=data, segment__epochs=1, segment__cls_share=0.3, classify__epochs=1)
        train_classifier(config, tmp_path / f"{name}-cls", QUIET)
        train_segmenter(config, tmp_path / f"{name}-seg", QUIET)
    for kind in ("cls", "seg"):
        ours, theirs = (read_checkpoint(tmp_path / f"{name}-{kind}" / "last.pt") for name in ("with", "without"))
        assert all(torch.equal(value, theirs["network"][key]) for key, value in ours["network"].items())
    assert (tmp_path / "without-cls" / "best.pt").is_file()  # tags are validated without masks
    assert not (tmp_path / "without-seg" / "best.pt").exists()


def test_the_program_leaves_with_75_when_terminated(tmp_path: Path, tiny_config: Any) -> None:
    config = tiny_config(classify__epochs=500, classify__validate_every=500)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    run = tmp_path / "run"
    command = [sys.executable, "-m", "wsss", "train-cls", "-c", str(tmp_path / "config.yaml"), "-o", str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (run / "metrics.jsonl").is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert out == ""
    error, fix = err.splitlines()[-2:]
    assert error.startswith("error: stopped by SIGTERM after step ")
    assert fix.startswith("fix:   ")
    assert f"--resume {run}" in fix
    assert "Traceback" not in err
    step = read_checkpoint(run / "last.pt")["training"]["step"]
    assert f"after step {step} of 1500" in error


@pytest.mark.parametrize("workers", [0, 1])
def test_labels_of_an_unknown_class(
    tmp_path: Path, tiny_config: Any, scenes: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label map that changed after the start raises an error that names it, and does not fail in the loss."""
    monkeypatch.setattr(start, "check_pixels", lambda *arguments: None)
    for record in open_data(scenes, split="train").records:
        label_HW = np.full(read_mask(scenes / "masks" / f"{record.name}.png").shape, 7, dtype=np.uint8)
        write_mask(tmp_path / "labels" / f"{record.name}.png", label_HW)
    config = tiny_config(segment__epochs=1, run__workers=workers)
    with pytest.raises(DataError, match=r"train_000.*\.png holds class 7; the data set has 1 to 2"):
        train_segmenter(config, tmp_path / "run", QUIET, labels=tmp_path / "labels")


def test_a_changed_config_beside_a_run_is_named_and_not_used(tmp_path: Path, tiny_config: Any) -> None:
    """A resumed run keeps the settings of its checkpoint, whatever the file beside it says."""

    class Saying(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    run, file = tmp_path / "run", tmp_path / "run" / "config.yaml"
    train_classifier(tiny_config(classify__epochs=1), run, Silent())
    resume_classifier(run, Saying())
    assert not any("config.yaml" in text for text in said)
    written = file.read_text()
    file.write_text(written.replace("epochs: 1\n", "epochs: 9\n", 1))
    resume_classifier(run, Saying())
    keeps = f"the run keeps the settings of its checkpoint; train anew, with -c {file}, for others"
    assert said.count(f"{file} was changed (classify.epochs 9, not 1); {keeps}") == 1
    file.write_text("classify: {epoch: 9}\n")
    resume_classifier(run, Saying())
    assert said.count(f"{file}: unknown key 'classify.epoch' (did you mean 'classify.epochs'?); {keeps}") == 1
    assert read_checkpoint(run / "last.pt")["training"]["step"] == 3


def test_a_run_is_resumed_with_other_loader_processes_or_on_another_device(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loader processes change no weight; the device is said, as it rounds otherwise."""

    class Saying(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    whole, run = tmp_path / "whole", tmp_path / "run"
    expected = train_classifier(tiny_config(classify__epochs=1), whole, QUIET).state_dict()
    with monkeypatch.context() as patched:
        stop_at(patched, ClassifyStep, 2, terminate)
        with pytest.raises(Interrupted):
            train_classifier(tiny_config(classify__epochs=1, run__workers=0, run__device="cpu"), run, QUIET)
    found = resume_classifier(run, Saying(), Moved(workers=1, device="auto")).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert any("was trained with device cpu" in text and "now auto" in text for text in said)
    assert not any("moved" in text for text in said)


@pytest.mark.parametrize("damage", [b"\xff\xfe\0{", b'{"loss": 1}\n', b"[1]\n", b'{"step": "x"}\n'])
def test_damaged_lines_of_figures_are_dropped(tmp_path: Path, tiny_config: Any, damage: bytes) -> None:
    run = tmp_path / "run"
    train_classifier(tiny_config(classify__epochs=1), run, QUIET)
    rows = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(rows + damage)
    resume_classifier(run, QUIET)
    assert (run / "metrics.jsonl").read_bytes() == rows
