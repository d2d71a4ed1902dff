"""`wsss fit-refiner`: what is learnt, from what, what the file says, and what make-pseudo and predict do with it."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from wsss.cli.main import run as program
from wsss.config import Config
from wsss.data.dataset import open_data
from wsss.data.masks import IGNORE_INDEX, read_mask, write_mask
from wsss.errors import DataError, Interrupted, UsageError
from wsss.files import files_below
from wsss.inference.labeller import Labeller
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.predicting import predict_masks
from wsss.inference.refiner_file import FittedRefiner, read_refiner, write_refiner
from wsss.inference.segmenter import Segmenter
from wsss.labels.refiner import Refiner
from wsss.maps.present import PresentMaps
from wsss.models.checkpoint import save_checkpoint
from wsss.models.network import Network
from wsss.outputs.manifest import read_manifest
from wsss.reporting import Silent
from wsss.stopping import stop_requests
from wsss.training.refiner import Example, class_weights, fit_refiner, learn, loss_of, small_label

CPU = torch.device("cpu")


@pytest.fixture
def network(small_network: Callable[..., Network]) -> Network:
    network = small_network()
    assert network.decoder is not None
    torch.nn.init.normal_(network.decoder.classify.weight, std=3.0)
    network.supervision = ("tags",)
    return network


@pytest.fixture
def changed() -> Refiner:
    refiner = Refiner()
    refiner.stay.data.fill_(0.9)
    return refiner


@pytest.fixture
def fitted(changed: Refiner, tmp_path: Path) -> FittedRefiner:
    write_refiner(tmp_path / "changed.safetensors", changed, {"supervision": ["tags", "true masks"]})
    return read_refiner(tmp_path / "changed.safetensors")


def squares(count: int) -> list[Example]:
    """A bright square on dark noise, and a map of half of it that spreads over the edge: colour tells where it ends."""
    examples, random = [], torch.Generator().manual_seed(0)
    for _ in range(count):
        top, left = torch.randint(2, 8, (2,), generator=random).tolist()
        label_hw = torch.zeros(24, 24, dtype=torch.uint8)
        label_hw[top : top + 14, left : left + 14] = 1
        image_3hw = (60 * label_hw + torch.randint(0, 120, (24, 24), generator=random)).byte().expand(3, 24, 24)
        map_hw = torch.zeros(24, 24)
        map_hw[top + 2 : top + 9, max(0, left - 2) : left + 9] = 1
        scores = PresentMaps.of(map_hw[None], torch.tensor([[True]]))
        examples.append(Example(image_3hw.contiguous(), scores, label_hw))
    return examples


def test_the_same_seed_learns_the_same() -> None:
    examples = squares(5)
    with stop_requests() as stop:
        first, again = (learn(examples, 1, 0, Silent(), stop) for _ in range(2))
    assert (first.learnt, first.held_out) == (4, 1)
    assert len(first.passes) == 6
    assert first.passes[first.best] == max(first.passes)
    assert first.passes == again.passes
    assert "PAMR" in first.words()


def test_a_step_lowers_the_loss() -> None:
    refiner, (example,) = Refiner(), squares(1)
    optimiser, losses = torch.optim.Adam(refiner.parameters(), lr=1e-2), []
    for _ in range(10):
        optimiser.zero_grad()
        loss = loss_of(refiner, example, torch.ones(1), torch.tensor(0.5), torch.tensor(2.3))
        assert loss is not None
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        optimiser.step()
    assert losses[-1] < 0.98 * losses[0]


def test_what_agrees_no_better_is_pamr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsss.training.refiner.score", lambda *_: (0.5, 0.25))
    with stop_requests() as stop:
        fit = learn(squares(5), 1, 0, Silent(), stop)
    assert fit.best == 0
    assert not any(value.any() for value in fit.refiner.state_dict().values())
    assert "the file is PAMR" in fit.words()


def test_small_labels_are_sure_and_of_the_tags() -> None:
    label_HW = torch.tensor([[0, 0, 1, 1, 2, 2], [0, 0, 1, 0, 2, 2]], dtype=torch.uint8)
    assert small_label(label_HW, [0, 1], (1, 3)).tolist() == [[0, IGNORE_INDEX, IGNORE_INDEX]]
    assert small_label(label_HW, [0, 2], (1, 3)).tolist() == [[0, IGNORE_INDEX, 2]]


def test_classes_weigh_by_their_images() -> None:
    examples = squares(3)
    assert class_weights(examples, 2).tolist() == [1, 0]


def test_a_signal_ends_it_with_75() -> None:
    class Stopping(Silent):
        def advance(self, count: int = 1, note: str = "") -> None:
            signal.raise_signal(signal.SIGTERM)

    with stop_requests() as stop, pytest.raises(Interrupted, match="begins anew") as caught:
        learn(squares(5), 1, 0, Stopping(), stop)
    assert caught.value.exit_status == 75


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["wsss", *words])
    with pytest.raises(SystemExit) as left:
        program()
    return int(left.value.code or 0)


def test_the_command(
    network: Network,
    tiny_config: Callable[..., Config],
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Tags and label maps alone are opened; the file says from what it was learnt, and serves both commands."""
    data, checkpoint = tmp_path / "data", tmp_path / "last.pt"
    shutil.copytree(scenes, data)
    shutil.rmtree(data / "masks")
    save_checkpoint(checkpoint, network, tiny_config())
    tagged = open_data(scenes, split="val")
    for record in tagged.records:
        truth_HW = tagged.truth(record)
        assert truth_HW is not None
        write_mask(tmp_path / "labels" / f"{record.name}.png", truth_HW)
    out, base = tmp_path / "refiner.safetensors", [str(checkpoint), "--data", str(data), "--split", "val"]
    words = ["fit-refiner", *base, "--labels", str(tmp_path / "labels"), "-o", str(out), "--json"]
    assert run([*words, "--limit", "6"], monkeypatch) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["images"], said["held_out"], said["oracle"]) == (6, 1, False)
    assert said["supervision"] == ["tags", "label maps"]
    assert sum(value.numel() for value in load_file(out).values()) == 32
    assert read_refiner(out).about["labels_sha256"] == said["labels_sha256"]
    before = out.read_bytes()
    assert run([*words, "--limit", "6"], monkeypatch) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run([*words, "--limit", "6", "--overwrite"], monkeypatch) == 0
    assert out.read_bytes() == before
    assert run([*words, "--oracle", "--overwrite"], monkeypatch) == 2
    capsys.readouterr()
    assert run(["fit-refiner", *base, "--oracle", "-o", str(tmp_path / "true")], monkeypatch) == 3
    assert "has a mask" in capsys.readouterr().err
    assert run(["make-pseudo", *base, "--refiner", str(out), "-o", str(tmp_path / "pseudo")], monkeypatch) == 0
    assert read_manifest(tmp_path / "pseudo")["supervision"] == ["tags", "label maps"]
    predict = ["predict", str(checkpoint), str(data), "--split", "val", "--refiner", str(out)]
    assert run([*predict, "-o", str(tmp_path / "masks")], monkeypatch) == 0
    assert read_manifest(tmp_path / "masks")["refiner_sha256"] == read_refiner(out).sha256
    out.write_text("no file of this kind")
    assert run([*predict, "-o", str(tmp_path / "more")], monkeypatch) == 3
    assert "cannot be read as a refiner" in capsys.readouterr().err


def test_the_oracle_says_so(network: Network, tiny_config: Callable[..., Config], scenes: Path) -> None:
    tagged = open_data(scenes, split="val")
    fit, about = fit_refiner(network, tagged, tiny_config(), Silent(), device=CPU, labels=None, limit=5)
    assert (about["supervision"], about["oracle"]) == (["tags", "true masks"], True)
    assert fit.learnt == 4
    with pytest.raises(DataError, match="4 images of split 'val'"):
        fit_refiner(network, tagged, tiny_config(), Silent(), device=CPU, labels=None, limit=4)


def test_labels_and_masks_change_and_another_refiner_is_refused(
    network: Network, tiny_config: Callable[..., Config], scenes: Path, tmp_path: Path, fitted: FittedRefiner
) -> None:
    tagged, config = open_data(scenes, split="val"), tiny_config()
    write_refiner(tmp_path / "zero.safetensors", Refiner(steps=config.labels.pamr_iterations), {})
    zero = read_refiner(tmp_path / "zero.safetensors")
    assert zero.supervision == ("a run that does not say its supervision",)

    def pseudo(out: str, fitted: FittedRefiner | None) -> dict[str, bytes]:
        make_pseudo_labels(
            network, tagged, tmp_path / out, config, Silent(), device=CPU, checkpoint_sha256="x", fitted=fitted
        )
        return {path.name: path.read_bytes() for path in files_below(tmp_path / out / "labels")}

    plain = pseudo("plain", None)
    assert pseudo("zero", zero) == plain
    assert pseudo("changed", fitted) != plain
    manifest = read_manifest(tmp_path / "changed")
    assert manifest["refiner_sha256"] == fitted.sha256
    assert manifest["supervision"] == ["tags", "true masks"]
    assert "refiner_sha256" not in read_manifest(tmp_path / "plain")
    for out, other in (("plain", fitted), ("changed", None), ("changed", zero)):
        with pytest.raises(UsageError, match="was made with other settings: refiner_sha256"):
            pseudo(out, other)

    def masks(out: str, fitted: FittedRefiner | None, **changes: Any) -> dict[str, bytes]:
        records, settings = tagged.records, tiny_config(**changes)
        predict_masks(
            network, records, tmp_path / out, settings, Silent(), device=CPU, checkpoint_sha256="x", fitted=fitted,
            overlays=False,
        )  # fmt: skip
        return {path.name: path.read_bytes() for path in files_below(tmp_path / out / "labels")}

    bare = masks("bare", None)
    refined = masks("refined", fitted)
    assert bare.keys() == refined.keys()
    assert bare != refined
    with pytest.raises(UsageError, match="was made with other settings"):
        masks("refined", zero)
    assert masks("windows", fitted, predict__tile=32).keys() == bare.keys()
    segmenter = Segmenter(network, tiny_config(), CPU, fitted=fitted)
    record = tagged.records[0]
    label_HW = segmenter.predict(record.decode()).label_HW
    assert (label_HW == read_mask(tmp_path / "refined" / "labels" / f"{record.name}.png")).all()


def test_where_nothing_is_refined_or_twice(
    network: Network, tiny_config: Callable[..., Config], fitted: FittedRefiner
) -> None:
    with pytest.raises(UsageError, match="pamr_iterations is 0"):
        Labeller(network, tiny_config(labels__pamr_iterations=0), CPU, fitted=fitted)
    with pytest.raises(UsageError, match="both refine"):
        Segmenter(network, tiny_config(predict__crf=True), CPU, fitted=fitted)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path, state = tmp_path / "refiner.safetensors", Refiner().state_dict()
    kind = {"wsss refiner 1": "{}"}

    def refused(match: str, change: dict[str, Any] | None = None, said: dict[str, str] | None = None) -> None:
        if change is not None:
            save_file({**state, **change}, path, kind if said is None else said)
        with pytest.raises(DataError, match=match) as caught:
            read_refiner(path)
        assert "fit-refiner" in caught.value.fix or "again" in caught.value.fix

    refused("no such refiner")
    refused("is no file of wsss fit-refiner", {}, {})
    refused("bias holds a number that is not finite", {"bias": torch.full((6,), torch.nan)})
    refused("learnt for 4 rings of neighbours, PAMR has 6", {"contrast": torch.zeros(4), "bias": torch.zeros(4)})
    refused("steps, this file 0", {"stay": torch.zeros(0), "anchor": torch.zeros(0)})
    refused("its tensors are", {"anchor": torch.zeros(3)})
    refused("its tensors are", {"more": torch.zeros(3)})
    path.write_bytes(path.read_bytes()[:50])
    refused("cannot be read as a refiner")
    path.write_bytes(b"")
    refused("it is empty")
