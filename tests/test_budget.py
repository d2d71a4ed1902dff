"""``wsss run --budget``: what fits into a time, by value."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wsss.budget import (
    END_TO_END,
    FEATURES,
    LABEL,
    SMALL,
    SPARE,
    TINY,
    UPPER,
    budget_seconds,
    choose,
    images_through,
    options_for,
    planned,
    resolved,
    spoken,
    step_seconds,
)
from wsss.config import Config, resolve
from wsss.errors import UsageError

CPU = torch.device("cpu")
SPEEDS = {(SMALL, 224): 0.4, (TINY, 224): 0.1, (TINY, 160): 0.05}
"""Seconds of an image in a step."""


def speed(config: Config, device: torch.device) -> float:
    return SPEEDS[config.model.backbone, config.augment.size]


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1.5 h", 5400), ("1h30m", 5400), ("45min", 2700), ("30", 30)]
)
def test_times(text: str, seconds: float) -> None:
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-2h", "0h", "2h later", "2x", "h"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="expected a time above 0"):
        budget_seconds(text)


def test_spoken_times() -> None:
    assert [spoken(seconds) for seconds in (5, 2400, 9000)] == ["1 min", "40 min", "2.5 h"]


def test_the_images_of_all_stages_by_hand() -> None:
    """1,600 images, batches of 16: 100 steps an epoch; 4 epochs of tags, half of which train the upper blocks."""
    config = resolve(None, (), {"segment.epochs": 3})
    upper = UPPER * 200 * 16
    tags = FEATURES * 1600 + upper
    round_ = 3 * 1600
    assert images_through(config, 1600) == SPARE * (tags + END_TO_END * round_ + round_ + LABEL * 1600)
    one = resolve(None, (), {"segment.epochs": 3, "segment.rounds": 1, "classify.finetune": "all"})
    assert images_through(one, 1600) == SPARE * (4 * 1600 + END_TO_END * round_)


def test_the_largest_that_fits() -> None:
    config, images = Config(), 3200
    options = options_for(config, images)
    assert [dict(one.keys)["model.backbone"] for one in options] == [SMALL, TINY, TINY, TINY, TINY]
    assert [dict(one.keys)["segment.rounds"] for one in options] == [2, 2, 1, 1, 1]
    assert [dict(one.keys)["augment.size"] for one in options] == [224, 224, 224, 224, 160]
    needs = []
    for one in options:
        changed = resolved(config, one.keys)
        needs.append(speed(changed, CPU) * images_through(changed, images))
    assert needs == sorted(needs, reverse=True)
    for at, seconds in enumerate(needs):
        choice = planned(config, images, seconds, CPU, speed)
        assert (choice.option, choice.seconds, choice.fits) == (options[at], seconds, True)
        assert choice.better == (None if at == 0 else (options[at - 1], needs[at - 1]))
    late = planned(config, images, 1.0, CPU, speed)
    assert (late.option, late.fits) == (options[-1], False)
    assert "longer than asked" in late.message("1s")
    assert options[-2].words in late.message("1s")


def test_keys_that_were_given_stay() -> None:
    config = resolve(None, (), {"model.backbone": TINY, "augment.size": 96, "segment.rounds": 2})
    assert {key for one in options_for(config, 400) for key, _ in one.keys} == {"segment.epochs"}
    weights = resolve(None, (), {"model.weights": "none", "segment.epochs": 1, "segment.rounds": 1, "augment.size": 64})
    (only,) = options_for(weights, 400)
    assert only.keys == ()


def test_few_images_keep_200_steps() -> None:
    for one in options_for(Config(), 100):
        epochs = dict(one.keys)["segment.epochs"]
        assert epochs * (100 // 16) >= 190


def test_a_step_is_measured(tiny_config: Any) -> None:
    config = tiny_config()
    seconds = step_seconds(config, CPU)
    assert 0 < seconds < 5


def test_equal_needs_take_the_first() -> None:
    options = options_for(Config(), 1600)
    assert choose(options[:2], [5.0, 5.0], 5.0).option is options[0]
    assert choose(options[:2], [5.0, 5.0], 1.0).better is None
