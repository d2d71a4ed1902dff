"""`train-cls --extend`: the losses by hand, the memory, and runs that learn a new class."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.data.dataset import open_data
from wsss.data.memory import Limits, bytes_of, open_memory, with_classes, write_memory
from wsss.data.scenes import SceneSettings, write_scenes
from wsss.errors import DataError, Interrupted, UsageError
from wsss.models.checkpoint import load_network, read_checkpoint
from wsss.training.extend import ExtendStep, classify_pooled, drift, pooled_logits
from wsss.training.start import SILENT, resume_classifier, train_classifier

from .test_resume import assert_same_checkpoints, stop_at, terminate

LIMITS = Limits(20_000, 32)


@pytest.fixture(scope="session")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of a new class, "wasp", and of an old one, "bee"."""
    root = tmp_path_factory.mktemp("more") / "scenes"
    settings = SceneSettings(classes=("bee", "wasp"), sizes=((48, 64),), max_classes=1)
    write_scenes(root, train=16, val=8, seed=1, settings=settings)
    return root


@pytest.fixture
def old(tmp_path: Path, tiny_config: Any) -> Path:
    train_classifier(tiny_config(classify__epochs=1), tmp_path / "old", SILENT)
    return tmp_path / "old"


def test_drift_by_hand() -> None:
    old_BU, new_BU = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert float(drift(old_BU, new_BU, "asymmetric")) == pytest.approx(0.2)
    assert float(drift(old_BU, new_BU, "symmetric")) == pytest.approx(0.2 * 2**0.5)
    assert float(drift(old_BU, old_BU, "asymmetric")) == 0
    assert float(drift(old_BU, 2 * old_BU, "asymmetric")) == pytest.approx(0, abs=1e-7)  # it grows
    both = torch.cat([old_BU, old_BU]), torch.cat([new_BU, old_BU])
    assert float(drift(*both, "asymmetric")) == pytest.approx(0.1)  # the mean over the images


def test_half_the_drift_costs_half() -> None:
    angle = 0.02
    at = [torch.tensor([[np.cos(a), np.sin(a)]]) for a in (0.7, 0.7 + angle / 2, 0.7 + angle)]
    for kind in ("asymmetric", "symmetric"):
        half, whole = (float(drift(at[0], moved, kind)) for moved in at[1:])  # type: ignore[arg-type]
        assert half == pytest.approx(whole / 2, rel=0.02)


def test_the_sums_are_those_of_the_matrix_of_logits() -> None:
    random = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 3, 5, 4, generator=random) for _ in range(2))
    logits_BANN = query @ key.transpose(-2, -1)
    wanted_BU = torch.cat([logits_BANN.sum(2), logits_BANN.sum(3)], dim=-1).flatten(1)
    torch.testing.assert_close(pooled_logits(query, key), wanted_BU)


def test_equal_networks_have_no_drift_and_no_gradient(small_network: Any) -> None:
    network = small_network("deit_tiny_patch16_224", ("bee", "wasp"), decoder=False, depth=2, embed_dim=24, num_heads=3)
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        logits_BK, old = classify_pooled(network, images, pooled=True)
    _, new = classify_pooled(network, images, pooled=True)
    loss = torch.stack([drift(*pair, "asymmetric") for pair in zip(old, new, strict=True)]).mean()
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert float(loss.detach()) == 0
    assert gradients
    assert all(bool((gradient == 0).all()) for gradient in gradients)
    torch.testing.assert_close(logits_BK, network.classify(images).detach())


def test_tags_teacher_and_unknown_by_hand(small_network: Any, tiny_config: Any) -> None:
    shape = {"depth": 2, "embed_dim": 24, "num_heads": 3}
    teacher = small_network("deit_tiny_patch16_224", ("bee", "ant"), decoder=False, **shape)
    network = small_network("deit_tiny_patch16_224", ("bee", "ant", "wasp"), decoder=False, **shape)
    step = ExtendStep(network, teacher, tiny_config(classify__distil="none"), whole=4).eval()
    batch = {
        "image": torch.rand(2, 3, 32, 32),
        "present": torch.tensor([[True, False, True], [False, True, False]]),
        "known": torch.tensor([[True, False, True], [True, True, False]]),  # the second is of a memory: wasp is unknown
    }
    with torch.no_grad():
        terms = step(batch, 0)
        p, q = network.classify(batch["image"]).sigmoid(), teacher.classify(batch["image"]).sigmoid()
    tags = -(p[0, 0].log() + p[0, 2].log() + (1 - p[1, 0]).log() + p[1, 1].log()) / 5
    taught = -(q[0, 1] * p[0, 1].log() + (1 - q[0, 1]) * (1 - p[0, 1]).log()) / 5
    torch.testing.assert_close(terms["classification"], tags)
    torch.testing.assert_close(terms["teacher"], taught)
    assert set(terms) == {"classification", "teacher"}
    assert not step.train().teacher.training


@pytest.mark.parametrize("most", [6_000, 12_000, 1_000_000])
def test_a_memory_keeps_to_its_bytes_and_knows_what_is_unknown(
    tmp_path: Path, scenes: Path, more: Path, most: int
) -> None:
    classes = ("bee", "ladybird", "wasp")
    before = with_classes(open_data(scenes, split="train"), classes, unknown=("wasp",))
    new = with_classes(open_data(more, split="train"), classes, only_present=("bee", "ladybird"))
    write_memory(tmp_path / "memory", (before, new), Limits(most, 24), seed=0)
    assert bytes_of(tmp_path / "memory") <= most
    memory = open_memory(tmp_path / "memory", classes)
    assert memory.classes == classes
    counts = memory.images_by_class()
    if most < 20_000:
        assert max(counts.values()) - min(counts.values()) <= 2, counts
    for record in memory.records:
        height, width = record.upright_size()
        assert height * width <= 1.1 * 24**2
        of_before = record.unknown == (2,)
        assert of_before or sorted({*record.tags, *record.unknown} - {2}) == [0, 1]
    assert {record.unknown for record in memory.records} >= {(2,)}
    plain = open_data(tmp_path / "memory")  # as any command reads it
    assert plain.classes == classes
    assert len(plain) == len(memory)
    again = open_memory(tmp_path / "memory", (*classes, "hornet"))
    assert all(3 in record.unknown for record in again.records)
    write_memory(tmp_path / "next", (memory,), Limits(most, 24), seed=1)  # small images are not compressed again
    kept = {record.digest or record.read() for record in open_memory(tmp_path / "next", classes).records}
    assert kept <= {record.digest or record.read() for record in memory.records}


def test_a_memory_too_small_for_an_image_is_refused(tmp_path: Path, scenes: Path) -> None:
    with pytest.raises(UsageError, match="no image of 24 pixels fits"):
        write_memory(tmp_path / "memory", (open_data(scenes, split="train"),), Limits(100, 24), seed=0)
    assert not (tmp_path / "memory").exists()


def test_old_rows_of_the_head_are_copied_and_new_ones_small(
    old: Path, more: Path, tmp_path: Path, tiny_config: Any
) -> None:
    stay = tiny_config(data__root=more, classify__epochs=1, classify__lr=1e-30, classify__weight_decay=0)
    new = train_classifier(stay, tmp_path / "new", SILENT, extend=old)
    teacher, _, _ = load_network(old)
    assert new.classes == ("bee", "ladybird", "wasp")
    was, grown = teacher.readout.state_dict(), new.readout.state_dict()
    for name, value in was.items():
        assert torch.equal(grown[name][: len(value)], value), name
    assert grown["head.weight"][2].abs().max() < was["head.weight"].abs().max() / 2
    assert grown["head.bias"][2].abs() < 1e-6
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(new.eval().classify(image)[:, :2], teacher.classify(image))


def test_a_resumed_run_ends_as_an_undisturbed_one_and_carries_its_memory_on(
    old: Path, more: Path, tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(data__root=more, classify__epochs=2)
    train_classifier(config, tmp_path / "whole", SILENT, extend=old, memory=LIMITS)
    assert bytes_of(tmp_path / "whole" / "memory") <= LIMITS.most
    stop_at(monkeypatch, ExtendStep, 3, terminate)
    with pytest.raises(Interrupted):
        train_classifier(config, tmp_path / "cut", SILENT, extend=old, memory=LIMITS)
    resume_classifier(tmp_path / "cut", SILENT)
    assert_same_checkpoints(tmp_path / "whole", tmp_path / "cut")
    assert read_checkpoint(tmp_path / "cut" / "last.pt")["training"]["step"] == 8  # as many of the memory as new images

    (tmp_path / "cut" / "memory" / "tags.csv").write_text(
        (tmp_path / "cut" / "memory" / "tags.csv").read_text().replace(",1,", ",0,", 1)
    )
    with pytest.raises(DataError, match="memory was changed"):
        resume_classifier(tmp_path / "cut", SILENT)

    hornets = tmp_path / "hornets"
    shutil.copytree(more, hornets)
    for table in hornets.rglob("*"):
        if table.suffix in (".csv", ".txt"):
            table.write_text(table.read_text().replace("wasp", "hornet"))
    third = tmp_path / "third"
    train_classifier(tiny_config(data__root=hornets), third, SILENT, extend=tmp_path / "whole", memory=LIMITS)
    memory = open_memory(third / "memory", ("bee", "ladybird", "wasp", "hornet"))
    assert min(memory.images_by_class().values()) > 0


def test_what_is_wrong_is_refused_with_its_remedy(
    old: Path, more: Path, tmp_path: Path, tiny_config: Any, scenes: Path
) -> None:
    def refused(match: str, remedy: str, config: Any, **more: Any) -> None:
        with pytest.raises((UsageError, DataError), match=match) as found:
            train_classifier(config, tmp_path / "never", SILENT, **more)
        assert remedy in found.value.fix
        assert not (tmp_path / "never").exists()

    grown = tiny_config(data__root=more)
    refused("exclude each other", "leave out --init", grown, extend=old, init=old)
    refused("no class that", "--init", tiny_config(), extend=old)
    other = tiny_config(data__root=more, model__backbone="deit_tiny_patch16_224")
    refused("backbone", "leave out --extend", other, extend=old)
    refused("head alone", "--finetune top", tiny_config(data__root=more, classify__finetune="head"), extend=old)
    refused("exclude each other", "leave out", tiny_config(data__root=more, classify__adversarial=1), extend=old)
    refused("no image of 32 pixels", "--memory", grown, extend=old, memory=Limits(400, 32))

    train_classifier(grown, tmp_path / "new", SILENT, extend=old)
    (old / "last.pt").rename(old / "away.pt")
    with pytest.raises(DataError, match="no such checkpoint"):
        resume_classifier(tmp_path / "new", SILENT)
    shutil.copy(tmp_path / "new" / "last.pt", old / "last.pt")
    with pytest.raises(DataError, match="is not the checkpoint"):
        resume_classifier(tmp_path / "new", SILENT)
