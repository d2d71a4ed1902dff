"""`train-cls`: a guide of attention, the attention gain and adversarial images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from wsss.data.masks import IGNORE_INDEX
from wsss.errors import DataError, UsageError
from wsss.models.checkpoint import build_from, load_network, read_checkpoint
from wsss.training.classify import ClassifyStep, even_rows, half_attacked
from wsss.training.guide import label_shares
from wsss.training.start import SILENT, resume_classifier, train_classifier
from wsss.training.step import tag_loss

BATCH = {
    "image": torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    "present": torch.tensor([[True, False], [False, True], [True, True], [True, False], [False, False]]),
}


def test_shares_of_labels_by_hand() -> None:
    """Patches of 1 x 2 pixels; the last column is padded."""
    label = torch.tensor([[[0, 1, IGNORE_INDEX, 2, 2]]], dtype=torch.uint8)
    assert label_shares(label, 2, (1, 2))[0, :, 0].tolist() == [[0.5, 0, 0], [0.5, 0, 0], [0, 0.5, 0.5]]


def test_adversarial_images_stay_near_and_raise_the_loss(small_network: Any) -> None:
    network = small_network(decoder=False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    attacked = half_attacked(network, BATCH, None, 4 / 255)
    moved = attacked - BATCH["image"]
    assert torch.equal(attacked[2:], BATCH["image"][2:])
    assert moved.abs().max() <= 4 / 255 + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    half = {name: values[:2] for name, values in BATCH.items()}
    assert tag_loss(network.classify(attacked[:2]), half) > tag_loss(network.classify(half["image"]), half)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_gain_is_what_even_rows_take_away(tiny_config: Any) -> None:
    config = tiny_config(classify__weight_gain=0.5)
    network = build_from(config, ("bee", "ladybird"), decoder=False).eval()
    terms = ClassifyStep(network, config, 4).eval()(BATCH, 0)
    edit = even_rows(network, 0)
    assert (edit.rows, edit.layers) == ("token", range(3, 4))  # a third of four blocks is the last one
    with torch.no_grad():
        logits = network.classify(BATCH["image"])
        with network.edited(edit):
            even = network.classify(BATCH["image"])
    assert not torch.equal(logits, even)
    torch.testing.assert_close(terms["gain"], 0.5 * tag_loss(logits - even, BATCH))
    torch.testing.assert_close(terms["classification"], tag_loss(logits, BATCH))


def test_weights_get_gradients_beside_a_pass_without_gradient_under_autocast(tiny_config: Any) -> None:
    config = tiny_config(classify__weight_gain=1.0, classify__adversarial=2.0)
    network = build_from(config, ("bee", "ladybird"), decoder=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = ClassifyStep(network, config, 4)(BATCH, 0)
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_guide_of_label_maps_is_learnt_with_checked_and_recorded(
    tmp_path: Path, tiny_config: Any, scenes: Path
) -> None:
    edit = {"name": "object-aware", "guide": "labels"}
    config = tiny_config(model__attention=[edit], classify__epochs=2)
    run = tmp_path / "run"
    network = train_classifier(config, run, SILENT, guide=scenes / "masks")
    assert float(network.attention[0].ramp) == 1
    strengths = network.attention[0].raw_L.detach()
    assert not torch.allclose(strengths, strengths[:1])
    content = read_checkpoint(run / "last.pt")
    assert content["task"] == {"guide": str(scenes / "masks")}
    assert content["supervision"] == ["tags", "label maps"]
    assert "guide_sha256" in (run / "run.json").read_text()
    resume_classifier(run, SILENT)
    plain = load_network(run)[0]
    plain.attention = torch.nn.ModuleList()
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(plain.classify(images), load_network(run)[0].classify(images))  # used without a guide


def test_guides_that_nothing_reads_or_that_lack_are_refused(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    with pytest.raises(UsageError, match="no edit of attention reads label maps"):
        train_classifier(tiny_config(), tmp_path / "run", guide=scenes / "masks")
    config = tiny_config(model__attention=[{"name": "object-aware", "guide": "labels"}])
    with pytest.raises(UsageError, match="lacks its label maps") as refused:
        train_classifier(config, tmp_path / "run")
    assert refused.value.fix == "--guide LABELS"
    with pytest.raises(DataError, match="have no label map"):
        train_classifier(config, tmp_path / "run", guide=tmp_path)
    assert not (tmp_path / "run").exists()
