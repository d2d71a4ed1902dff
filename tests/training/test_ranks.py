"""Training in several processes: gloo on the CPU."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wsss.config import Config
from wsss.data.masks import IGNORE_INDEX
from wsss.data.splits import open_training
from wsss.errors import Interrupted, UsageError
from wsss.inference.labelling import make_pseudo_labels
from wsss.models.checkpoint import file_hash, load_network, read_checkpoint
from wsss.models.network import Network
from wsss.outputs.journal import read_journal
from wsss.reporting import Silent
from wsss.shard import Shard
from wsss.training import rounds
from wsss.training.loop import Loop, RunContext
from wsss.training.ranks import ALONE, Ranks
from wsss.training.start import resume_classifier, train_classifier, train_segmenter

WORKER = Path(__file__).with_name("ranks_worker.py")
spec = importlib.util.spec_from_file_location("ranks_worker", WORKER)
assert spec is not None
assert spec.loader is not None
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
CPU = torch.device("cpu")


def start(work: str, folder: Path, given: dict[str, Any], world: int = 2) -> list[int]:
    """Exit statuses of processes that do some work together."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "given.pkl").write_bytes(pickle.dumps(given))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    command = [sys.executable, str(WORKER), work, str(folder)]
    ranks = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(world)
    ]
    try:
        return [rank.wait(120) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def found(folder: Path, rank: int = 0) -> Any:
    return torch.load(folder / f"found-{rank}.pt", weights_only=False)


def error(folder: Path, rank: int) -> list[str]:
    return (folder / f"error-{rank}").read_text().splitlines()


@pytest.mark.slow
def test_what_processes_agree_on(tmp_path: Path) -> None:
    assert start("agreements", tmp_path, {}) == [0, 0]
    first, second = found(tmp_path, 0), found(tmp_path, 1)
    assert first["lead"] == second["lead"] == "from 0"
    assert (first["agree"], second["agree"]) == (0, 1)
    assert first["gather"] == second["gather"] == [0, 1]
    assert (first["collect"], second["collect"]) == ([0, "x", 1, "x"], [])
    assert first["any"] == second["any"] == [True, False]
    assert first["mean"].tolist() == second["mean"].tolist() == [0.5, 3.0]
    assert (first["share"], second["share"]) == ([0, 2, 4], [1, 3])
    assert first["error"] == ("broken", "mend it", True)
    assert second["error"] == ("broken", "mend it", False)


def make_batch(labels: bool) -> dict[str, Tensor]:
    """Four images with 1, 1, 2 and 2 tags, so that the halves have different numbers; the last has no valid pixel."""
    torch.manual_seed(3)
    batch = {
        "image": (torch.rand(4, 3, 32, 32) * 255).to(torch.uint8),
        "present": torch.tensor([[True, False], [False, True], [True, True], [True, True]]),
        "known": torch.tensor([[True, True], [True, False], [True, True], [True, True]]),
        "valid": torch.ones(4, 32, 32, dtype=torch.uint8),
    }
    batch["valid"][3] = 0
    batch["valid"][0, :20] = 0
    if labels:
        batch["label"] = torch.randint(0, 3, (4, 32, 32), dtype=torch.uint8)
        batch["label"][1, :, 4:] = IGNORE_INDEX
    return batch


CASES: tuple[tuple[str, dict[str, Any], list[int]], ...] = (
    ("train-cls", {}, [0, 1]),
    ("end-to-end", {"segment__ema": 0.0}, [0, 1, 5, 9]),  # classify twice, then maps, then maps and decoder
    ("end-to-end", {"segment__ema": 0.9}, [0, 9]),
    ("labels", {}, [0, 1]),
    ("train-cls", {"classify__accumulate": 2}, [0]),
    ("labels", {"segment__accumulate": 2}, [0]),
)


@pytest.mark.slow
def test_processes_and_parts_have_the_gradients_of_the_whole_batch(
    tmp_path: Path, tiny_config: Callable[..., Config]
) -> None:
    def case(kind: str, changes: dict[str, Any], numbers: list[int]) -> dict[str, Any]:
        config = tiny_config(maps__start_layer=1, labels__low=0.3, labels__high=0.5, **changes)
        return {"kind": kind, "config": config, "batch": make_batch(kind == "labels"), "numbers": numbers}

    assert start("all_gradients", tmp_path, {"cases": [case(*one) for one in CASES]}) == [0, 0]
    for (kind, changes, numbers), first, second in zip(CASES, found(tmp_path, 0), found(tmp_path, 1), strict=True):
        whole = {} if any(name.endswith("accumulate") for name in changes) else changes
        alone = worker.gradients(ALONE, case(kind, whole, numbers))
        assert_same_gradients(first, alone)
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        last = [value for name, value in alone.items() if name.startswith(f"{numbers[-1]} ")]
        assert sum(value.numel() > 0 and bool(value.abs().sum() > 0) for value in last) > 10
        if changes != whole:
            assert_same_gradients(worker.gradients(ALONE, case(kind, changes, numbers)), alone)


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].shape == value.shape, name  # what gets no gradient gets none in both
        assert (ours[name] - value).norm() <= 1e-5 * value.norm() + 1e-8, name


def weights(run: Path) -> dict[str, Tensor]:
    network: dict[str, Tensor] = read_checkpoint(run / "last.pt")["network"]
    return network


def assert_alike(first: Path, second: Path, most: float) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert (value - theirs[name]).abs().max() <= most, name


@contextmanager
def one_thread() -> Iterator[None]:
    """As the workers: sums over several threads round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def rows(run: Path) -> list[dict[str, Any]]:
    import json

    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_one_two_one_processes_take_the_steps_of_one(
    tmp_path: Path, tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by a signal to one process alone; the weights differ by the rounding of sums."""
    config = tiny_config(classify__epochs=4)  # 12 steps
    train_classifier(config, tmp_path / "whole", Silent())
    run = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_backward", worker.signalled(2, signal.SIGTERM))
        with pytest.raises(Interrupted):
            train_classifier(config, run, Silent())
    resumed = {"how": "resume-cls", "arguments": [run], "stop_at": 7, "who": 1, "signal": signal.SIGUSR1}
    assert start("train", tmp_path / "2", resumed, 2) == [75, 75]
    assert read_checkpoint(run / "last.pt")["training"]["step"] == 8
    said = {error(tmp_path / "2", rank)[2] for rank in (0, 1)}
    assert "after step 8 of 12" in error(tmp_path / "2", 0)[0]
    assert error(tmp_path / "2", 0)[1] == f"--resume {run}"
    assert said == {"True", "False"} or said == {"False"}
    resume_classifier(run, Silent())
    assert_alike(tmp_path / "whole", run, 1e-4)
    ours, theirs = rows(tmp_path / "whole"), rows(run)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, their in zip(ours, theirs, strict=True):
        for name in mine.keys() - {"images_per_second", "split"}:
            assert mine[name] == pytest.approx(their[name], rel=1e-3), name


@pytest.mark.slow
def test_rounds_in_two_processes(tmp_path: Path, tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(segment__rounds=2, segment__ema=0.9)
    train_segmenter(config, tmp_path / "whole", Silent())
    run = tmp_path / "run"
    assert start("train", tmp_path / "2", {"how": "train-seg", "arguments": [config, run]}, 2) == [0, 0]
    files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert files == {
        path.relative_to(tmp_path / "whole").as_posix() for path in (tmp_path / "whole").rglob("*") if path.is_file()
    }
    assert_alike(tmp_path / "whole" / "teacher", run / "teacher", 5e-3)
    ours, theirs = rows(tmp_path / "whole" / "teacher"), rows(run / "teacher")
    for mine, their in zip(ours, theirs, strict=True):
        for name in mine.keys() - {"images_per_second", "split"}:
            assert mine[name] == pytest.approx(their[name], rel=0.02), name

    check_labels_of_two(config, run, found(tmp_path / "2", 0), found(tmp_path / "2", 1), tmp_path / "alone")


def check_labels_of_two(config: Config, run: Path, first: list[str], second: list[str], alone: Path) -> None:
    """Both labelled, and what they made is what one process makes, also of what one of two had done."""
    network, _, path = load_network(run / "teacher")
    tagged, _ = open_training(config.anchored(), Silent())
    assert sorted(first + second) == sorted(record.name for record in tagged.records)
    assert first
    assert second
    context = RunContext(alone, config, CPU, Silent())
    (alone / "teacher").mkdir(parents=True)
    shutil.copy(path, alone / "teacher" / "last.pt")
    with one_thread():
        make_pseudo_labels(
            network,
            tagged,
            alone / "labels",
            config,
            Silent(),
            device=CPU,
            checkpoint_sha256=file_hash(path),
            shard=Shard(1, 2),
        )
        rounds._label(context, network, tagged)
    assert read_journal(alone / "labels") == read_journal(run / "labels")
    made, theirs = (
        {path.name: path.read_bytes() for path in (folder / "labels" / "labels").iterdir()} for folder in (run, alone)
    )
    assert made == theirs


@pytest.mark.slow
def test_the_head_is_fitted_in_two_processes(tmp_path: Path, tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(classify__finetune="head", run__batch_pixels=48**2)
    with one_thread():
        train_classifier(config, tmp_path / "whole", Silent())
    run = tmp_path / "run"
    assert start("train", tmp_path / "2", {"how": "train-cls", "arguments": [config, run]}, 2) == [0, 0]
    assert_alike(tmp_path / "whole", run, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("hangs", [False, True])
def test_the_others_end_where_one_process_is_lost(tmp_path: Path, hangs: bool) -> None:
    patience = 5
    statuses = start("lonely", tmp_path, {"hangs": hangs, "patience": patience}, 3)
    assert statuses == [4, -signal.SIGKILL, 4]
    said = [(tmp_path / f"error-{rank}").read_text() for rank in (0, 2)]
    assert any(("did not answer" if hangs else "died") in words for words in said)
    assert all("another of the 3 processes of this run" in words and "--resume RUN" in words for words in said)
    assert not hangs or any(f"for 0:00:0{patience}" in words for words in said)
    waited = [float((tmp_path / f"waited-{rank}").read_text()) for rank in (0, 2)]
    assert all(seconds < (4 * patience if hangs else 15) for seconds in waited)


def test_a_batch_that_cannot_be_divided_is_refused(
    tmp_path: Path, tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="a batch of 8 images cannot be divided equally into 3 parts") as caught:
        train_classifier(tiny_config(classify__accumulate=3), tmp_path / "run", Silent())
    assert caught.value.fix == "--batch-size 9"
    monkeypatch.setattr(Ranks, "world", 5)
    with pytest.raises(UsageError, match="into 5 processes") as caught:
        train_classifier(tiny_config(), tmp_path / "run", Silent())
    assert caught.value.fix == "--batch-size 10"
    assert not (tmp_path / "run").exists()
    assert RunContext(tmp_path, tiny_config(), CPU, Silent()).ranks is ALONE


def test_no_module_needs_the_statistics_of_a_batch(small_network: Callable[..., Network]) -> None:
    network = small_network()
    assert not [one for one in network.modules() if isinstance(one, torch.nn.modules.batchnorm._BatchNorm)]
