"""Labels of a round beside those of its class maps alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.config import Config
from wsss.data.records import Record, TaggedSet
from wsss.models.network import Network
from wsss.outputs.journal import Entry
from wsss.reporting import Silent
from wsss.training import confirmation
from wsss.training.confirmation import say_growth, spread


class Saying(Silent):
    """A reporter that keeps the remarks."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class Maps:
    """In place of a labeller: of 10 pixels, 2 are foreground and 3 ignored by the maps alone."""

    def __init__(self, network: Any, config: Config, device: torch.device) -> None:
        assert not config.labels.decoder

    def label(self, image: Any, tags: list[str]) -> np.ndarray:
        assert tags == ["dog"]
        return np.array([[1, 1, 255, 255, 255, 0, 0, 0, 0, 0]], np.uint8)


def growth(monkeypatch: pytest.MonkeyPatch, foreground: int, reporter: Silent) -> float:
    """Of images whose labels of the round have so many foreground pixels of 10; one has no tags."""
    monkeypatch.setattr(confirmation, "Labeller", Maps)
    monkeypatch.setattr(Record, "decode", lambda record: np.zeros((1, 10, 3), np.uint8))
    records = [Record(name=str(k), image=Path("a.jpg"), tags=() if k == 0 else (1,)) for k in range(4)]
    train = TaggedSet(root=Path("data"), split="train", classes=("cat", "dog"), records=records)
    pixels = {0: 9 - foreground, 2: foreground, 255: 1}
    entries = {
        record.name: Entry(
            name=record.name, origin="", source="", tags=record.tags, settings="", pixels=pixels, files={}
        )
        for record in records
    }
    network: Network = None  # type: ignore[assignment]  # the labeller takes no look at it
    return say_growth(network, train, entries, Config(), torch.device("cpu"), reporter)


def test_labels_that_grew_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = Saying()
    assert growth(monkeypatch, 4, reporter) == 2.0
    (said,) = reporter.said
    assert said.startswith("objects have 40.0% of the pixels in the labels of this round, 20.0% by the class maps; ")


def test_labels_as_large_as_the_maps_are_no_reason_to_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    reporter = Saying()
    assert growth(monkeypatch, 2, reporter) == 1.0
    assert reporter.said == ["objects have 20.0% of the pixels in the labels of this round, 20.0% by the class maps"]


def test_a_sample_is_spread_over_all() -> None:
    records = [Record(name=str(k), image=Path("a.jpg"), tags=()) for k in range(10)]
    assert [one.name for one in spread(records, 4)] == ["0", "3", "6", "9"]
    assert len(spread(records, 40)) == 10
    assert spread([], 4) == []
