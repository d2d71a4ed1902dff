"""Programs behind the pages of comparisons and failures, on small data."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from wsss.config import Config
from wsss.maps.recorder import MapSettings
from wsss.training.start import train_classifier

ROOT = Path(__file__).parents[1]


def loaded(path: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str((ROOT / path).parent))
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_maps_are_compared_without_the_packages(
    tiny_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compare = loaded("examples/compare_maps.py", monkeypatch)
    find = importlib.util.find_spec
    hidden = ("pytorch_grad_cam", "torchcam")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in hidden else find(name, *rest))
    config = tiny_config(classify__epochs=1)
    train_classifier(config, tmp_path / "cls")
    compare.main(tmp_path / "cls", config.data.root, tmp_path / "maps", limit=3)
    rows = json.loads((tmp_path / "maps" / "maps.json").read_text())
    assert [row["maps"] for row in rows] == [f"wsss {name}" for name in compare.OURS]
    assert all(0 < row["mean_iou"] <= row["oracle"] <= 1 for row in rows)
    assert "not installed: grad-cam: pip install" in capsys.readouterr().out
    with Image.open(tmp_path / "maps" / "maps.jpg") as sheet:
        assert sheet.size[0] == 4 * (compare.TILE + 6) + 6


@pytest.mark.parametrize(("module", "reader"), [("pytorch_grad_cam", "grad_cam_maps"), ("torchcam", "torchcam_maps")])
def test_grad_cam_of_the_packages_is_ours(
    module: str, reader: str, small_network: Callable[..., torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same layer, so the same map; the packages also take its minimum off."""
    pytest.importorskip(module)
    compare = loaded("examples/compare_maps.py", monkeypatch)
    image_13HW = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    theirs = getattr(compare, reader)(small_network(), "GradCAM")(image_13HW, [1])
    ours = compare.our_maps(small_network(), MapSettings(method="gradcam", gamma=1.0, spread=0))(image_13HW, [1])
    size = (4, 5) if module == "torchcam" else (32, 40)
    ours, theirs = compare.scores(ours, size), compare.scores(theirs, size)
    np.testing.assert_allclose(theirs, (ours - ours.min()) / (ours.max() - ours.min()), atol=1e-3)


@pytest.mark.slow
def test_pictures_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = loaded("benchmarks/failures.py", monkeypatch)
    small = ["model.vit={patch_size: 32, embed_dim: 24, depth: 4, num_heads: 3}", "model.weights=none"]
    small += ["model.decoder_channels=8", "segment.epochs=1", "classify.epochs=1", "augment.size=64"]
    small += ["run.device=cpu", "classify.finetune=all", "segment.finetune=all"]
    failures.main(tmp_path, None, tmp_path / "pictures", kinds="ground,thin", train=4, val=3, assignments=small)
    for kind in ("ground", "thin"):
        with Image.open(tmp_path / "pictures" / f"failure-{kind}.jpg") as picture:
            assert picture.size[0] == 5 * (failures.TILE + 6) + 6
