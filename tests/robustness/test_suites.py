"""Suites from images to the table: rows, figures, retention, corruption error, capture, the work of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wsss.attention.temperature import Temperature
from wsss.config import Config
from wsss.data.dataset import open_data
from wsss.data.records import TaggedSet
from wsss.errors import Interrupted, UsageError
from wsss.maps.recorder import MapSettings
from wsss.maps.tape import AttentionTape
from wsss.models.network import Network, build_network
from wsss.outputs.figures import FigureFolder
from wsss.reporting import Silent
from wsss.robustness.measure import SHEET, Plan, background_threshold, measure_suite
from wsss.robustness.reading import capture, counts, measure
from wsss.robustness.suites import CLEAN, Changed, Clean, Condition, Row, occlusion, readings, rows_of
from wsss.robustness.table import Score, Table, corruption_error, make_table, mean_iou, retention

CPU = torch.device("cpu")
SETTINGS = MapSettings(method="attention-gradient", start_layer=0, gamma=1.0, spread=0)
ATTACK = Condition("attack", "", lambda network, clean: Changed(clean.images_B3HW), is_attack=True)


def clean_batch(network: Network) -> Clean:
    images = torch.rand(3, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    present = torch.tensor([[True, False], [True, True], [False, False]])
    return Clean(
        images_B3HW=images,
        names=("a", "b", "c"),
        present_BK=present,
        known_BK=torch.ones_like(present),
        saliency_Bhw=torch.empty(0),
    )


def truth(height: int = 30, width: int = 50) -> NDArray[np.uint8]:
    truth_HW = np.zeros((height, width), np.uint8)
    truth_HW[5:20, 10:30] = 1
    truth_HW[20:, 30:] = 2
    truth_HW[0] = 255
    return truth_HW


def measured(network: Network, conditions: list[Condition], temperatures: tuple[float, ...] = (1.0,)) -> list[Any]:
    truths = [truth(), truth(), None]
    clean = clean_batch(network)
    return measure(network, clean, conditions, temperatures, SETTINGS, 0.5, truths, [True, False, False])


def test_rows_of_two_threat_models() -> None:
    """Made once and read twice; an attack on the network with the temperature is read with it alone."""
    assert readings(CLEAN, (1.0, 2.0)) == [(1.0, [1.0, 2.0])]
    assert readings(ATTACK, (1.0, 2.0)) == [(1.0, [1.0, 2.0]), (2.0, [2.0])]
    rows = rows_of([CLEAN, ATTACK], (1.0, 2.0))
    assert [(row.kind, row.temperature, row.threat) for row in rows] == [
        ("clean", 1.0, ""),
        ("clean", 2.0, ""),
        ("attack", 1.0, ""),
        ("attack", 2.0, "transfer"),
        ("attack", 2.0, "adaptive"),
    ]


def test_figures_of_clean_images_equal_the_network(small_network: Callable[..., Network]) -> None:
    network = small_network()
    (one, two, no_mask) = measured(network, [CLEAN, *occlusion()[:1]])
    with torch.no_grad():
        logits_BK, scores_BCHW = network(clean_batch(network).images_B3HW)
    torch.testing.assert_close(torch.from_numpy(one["logits"][0]), logits_BK[0])
    assert one["seeds"].shape == (2, 3, 4)
    assert one["seeds"][0].sum() == one["masks"][0].sum() == 29 * 50  # a row of the mask is ignored
    assert one["seeds"][0][:, 2].sum() == 0  # the second class is no tag of this image
    assert two["seeds"][0][:, 2].sum() > 0
    assert not no_mask["seeds"].any()
    assert not one["part"][0].any()
    assert 0 < one["part"][1].sum() < one["seeds"][1].sum()
    assert one["pictures"].shape == (2, 24, 80, 3)
    assert "pictures" not in two
    grid_CHW = torch.nn.functional.interpolate(scores_BCHW[:1].log_softmax(dim=1), (30, 50), mode="bilinear")[0]
    agreed = counts(grid_CHW.argmax(dim=0).numpy(), truth(), 3)
    assert np.abs(agreed - one["masks"][0]).sum() / agreed.sum() < 0.05  # interpolated in two steps here


def test_a_temperature_changes_the_figures_and_is_gone_after(small_network: Callable[..., Network]) -> None:
    network = small_network()
    (one, *_) = measured(network, [CLEAN, ATTACK], (1.0, 2.0))
    logits_RK = one["logits"]
    assert logits_RK.shape == (5, 2)
    assert not np.array_equal(logits_RK[0], logits_RK[1])
    assert np.array_equal(logits_RK[0], logits_RK[2])  # this attack changes nothing
    assert np.array_equal(logits_RK[1], logits_RK[4])
    assert network.edits == []


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "vit_base_patch16_siglip_gap_224"])
def test_capture_by_hand(small_network: Callable[..., Network], name: str) -> None:
    network = small_network(name, decoder=False)
    images = torch.rand(2, 3, 24, 40)
    part = torch.zeros(2, 3, 5, dtype=torch.bool)
    part[:, 1:, 2:4] = True
    with torch.no_grad(), AttentionTape(network.backbone.blocks) as tape:
        network.classify(images)
    prefix = network.backbone.num_prefix_tokens
    for layer, attention in enumerate(tape.attentions):
        matrix_BNN = attention.rows(slice(None)).mean(dim=1)
        row_BM = (matrix_BNN[:, 0] if prefix else matrix_BNN.mean(dim=1))[:, prefix:]
        share_B = row_BM[:, part[0].flatten()].sum(dim=1) / row_BM.sum(dim=1)
        torch.testing.assert_close(capture(network, Changed(images, part))[:, layer], share_B / (4 / 15))
    assert capture(network, Changed(images)).isnan().all()
    whole = torch.ones_like(part)
    torch.testing.assert_close(capture(network, Changed(images, whole)), torch.ones(2, network.backbone.depth))


def test_attention_that_sees_all_patches_alike_is_fair(small_network: Callable[..., Network]) -> None:
    network = small_network(decoder=False)
    part = torch.zeros(2, 3, 5, dtype=torch.bool)
    part[:, 0, 0] = True
    with network.edited(Temperature(1e9)):
        captured_BL = capture(network, Changed(torch.rand(2, 3, 24, 40), part))
    torch.testing.assert_close(captured_BL, torch.ones(2, 4), rtol=1e-4, atol=1e-4)


def test_retention_of_a_constant_classifier_is_1() -> None:
    """Whatever the images hold, it says the same: nothing is lost."""
    seeds = np.tile(np.array([[30, 10, 0], [20, 40, 0]], np.int32), (3, 1, 1))
    figures = [
        {
            "logits": np.full((3, 1), 0.7, np.float32),
            "seeds": seeds,
            "part": 0 * seeds,
            "masks": 0 * seeds,
            "capture": np.full((3, 0), np.nan, np.float32),
        }
        for _ in range(4)
    ]
    rows = [Row("clean", ""), Row("noise", "1"), Row("noise", "2")]
    tags = np.array([[True], [False], [True], [True]])
    table = make_table(figures, rows, tags, np.ones_like(tags), 0.5)
    assert [one.retention for one in table.scores] == [{"tags": 1.0, "maps": 1.0, "masks": None}] * 3
    assert table.clean().maps == pytest.approx((30 / 60 + 40 / 70) / 2)
    assert table.clean().tags == pytest.approx(0.75)
    assert (table.kept("maps"), table.kept("masks"), table.scored) == (1.0, None, 4)


def test_equal_rows_are_scored_together() -> None:
    figures = [
        {
            "logits": np.array([[1.0], [score], [-score]], np.float32),
            "seeds": np.array([[[1, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 1, 0]], [[0, 1, 0], [1, 0, 0]]], np.int32),
            "part": np.zeros((3, 2, 3), np.int32),
            "masks": np.zeros((3, 2, 3), np.int32),
            "capture": np.array([[np.nan], [1.0], [3.0]], np.float32),
        }
        for score in (1.0, -1.0)
    ]
    rows = [Row("clean", ""), Row("patch", "noise"), Row("patch", "noise")]
    tags = np.array([[True], [False]])
    clean, patch = make_table(figures, rows, tags, np.ones_like(tags), 0.5).scores
    assert clean.maps == 1
    assert patch.maps == pytest.approx(1 / 3)  # of each class one of three pixels that have it in truth or prediction
    assert patch.capture == (2.0,)
    assert patch.tags == pytest.approx(0.5)  # both places together: one image with the tag is first, one last


def score(kind: str, level: str, maps: float | None) -> Score:
    return Score(
        **{"kind": kind, "level": level, "temperature": 1.0, "threat": "", "tags": None, "maps": maps, "masks": None},
        inside=None,
        outside=None,
        capture=(),
        retention={},
    )


def table_of(*maps: float | None) -> Table:
    kinds = [("clean", ""), ("noise", "1"), ("noise", "3"), ("fog", "1")]
    scores = tuple(score(*kind, value) for kind, value in zip(kinds, maps, strict=True))
    return Table(images=1, scored=1, threshold=0.5, scores=scores)


def test_corruption_error_by_hand() -> None:
    one, two = table_of(0.9, 0.5, 0.3, 0.8), table_of(0.9, 0.4, 0.2, 0.6)
    assert corruption_error(one, two, "maps") == pytest.approx(((0.5 + 0.7) / (0.6 + 0.8) + 0.2 / 0.4) / 2)
    assert corruption_error(one, one, "maps") == pytest.approx(1)
    assert corruption_error(one, table_of(0.9, 0.4, None, 0.6), "maps") is None
    assert corruption_error(one, two, "tags") is None


def test_retention_of_nothing_is_unknown() -> None:
    clean, worse = score("clean", "", 0.8), score("noise", "1", 0.4)
    assert retention(worse, clean)["maps"] == pytest.approx(0.5)
    assert retention(worse, score("clean", "", 0.0))["maps"] is None
    assert mean_iou(np.zeros((2, 3), np.int64)) is None


def test_the_threshold_is_that_of_the_background_rule() -> None:
    labels = Config().labels
    assert background_threshold(labels) == pytest.approx((labels.low + labels.high) / 2)
    power = labels.model_copy(update={"background": "power", "exponent": 32.0})
    assert background_threshold(power) == pytest.approx(0.077)


@pytest.fixture
def val(scenes: Path) -> TaggedSet:
    return open_data(scenes, split="val")


def suite(network: Network, val: TaggedSet, out: Path, config: Config, plan: Plan, **more: Any) -> Table:
    return measure_suite(network, val, out, config, plan, Silent(), device=CPU, checkpoint_sha256="0", **more)


def test_a_stopped_suite_continues_with_the_same_figures(
    small_network: Callable[..., Network],
    tiny_config: Callable[..., Config],
    val: TaggedSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed after the first images, it measures the others alone, and its table is that of an undisturbed run."""
    network, config = small_network(), tiny_config(run__batch_pixels=8192)
    plan = Plan(suite="shuffle", side=32, limit=6)
    whole = suite(network, val, tmp_path / "whole", config, plan)
    assert (whole.images, whole.scored) == (6, 6)
    written: list[str] = []
    write = FigureFolder.write

    def stopping(folder: FigureFolder, name: str, made_from: str, figures: Any) -> None:
        write(folder, name, made_from, figures)
        written.append(name)
        if len(written) == 1:
            folder.stop.asked = "SIGTERM"

    monkeypatch.setattr(FigureFolder, "write", stopping)
    with pytest.raises(Interrupted):
        suite(network, val, tmp_path / "stopped", config, plan)
    done = len(written)
    assert 0 < done < 6
    assert suite(network, val, tmp_path / "stopped", config, plan) == whole
    assert sorted(written) == sorted({*written})  # no image twice
    scores = [json.loads((tmp_path / out / "robustness.json").read_text())["scores"] for out in ("whole", "stopped")]
    assert scores[0] == scores[1]
    assert (tmp_path / "stopped" / SHEET).read_bytes() == (tmp_path / "whole" / SHEET).read_bytes()
    with pytest.raises(UsageError, match="settings"):
        suite(network, val, tmp_path / "stopped", config, replace(plan, threshold=0.3))


def test_a_network_without_attention_is_measured_but_has_no_temperature(
    tiny_config: Callable[..., Config], val: TaggedSet, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = build_network("resnet10t", val.classes, decoder=False)
    config = tiny_config(maps__method="gradcam", maps__start_layer=None)
    plan = Plan(suite="occlusion", side=64, limit=2)
    table = suite(network, val, tmp_path / "out", config, plan)
    assert table.scores[1].capture == ()
    assert table.scores[1].inside is not None
    with pytest.raises(UsageError, match="no attention"):
        suite(network, val, tmp_path / "hot", config, replace(plan, temperatures=(2.0,)))
