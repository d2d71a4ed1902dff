"""Tags that say yes to every image leave the backbone as it was; others train it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wsss.models.checkpoint import build_from
from wsss.reporting import Silent
from wsss.training import head
from wsss.training.start import train_classifier


@pytest.mark.parametrize("negatives", [0, 4])
def test_the_backbone_learns_from_negatives_alone(
    tmp_path: Path, tiny_config: Any, negatives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "MOST_STEPS", 50)
    root = tmp_path / "photos"
    root.mkdir()
    lines = ["image,labels"]
    for number in range(16):
        noise_HW3 = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise_HW3).save(root / f"p{number}.png")
        lines.append(f"p{number},{'' if number < negatives else 'cat'}")
    (root / "tags.csv").write_text("\n".join(lines))
    said: list[str] = []

    class Saying(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    config = tiny_config(data__root=root)
    start = build_from(config, ["cat"], decoder=False).state_dict()
    trained = train_classifier(config, tmp_path / "run", Saying()).state_dict()
    changed = {name.split(".")[0] for name in start if not torch.equal(start[name], trained[name])}
    assert changed == ({"backbone", "readout"} if negatives else {"readout"})
    kept = [text for text in said if "the backbone keeps its weights: every class is in every image" in text]
    assert len(kept) == (0 if negatives else 1)
