"""Fixtures shared by many tests: generated scenes, a config that trains in seconds, small networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsss.config import Config, resolve
from wsss.data.scenes import SceneSettings, write_scenes

TRAIN, VAL = 24, 8
VIT = {"patch_size": 8, "img_size": 32, "embed_dim": 24, "depth": 4, "num_heads": 3}


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder instead of the user's, for the tests and for the programs that they start."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 8 validation scenes of 48x64 and 64x48 pixels, two classes. Read only."""
    root = tmp_path_factory.mktemp("data") / "scenes"
    settings = SceneSettings(classes=("bee", "ladybird"), sizes=((48, 64), (64, 48)), max_classes=2)
    write_scenes(root, train=TRAIN, val=VAL, seed=0, settings=settings)
    return root


@pytest.fixture
def tiny_config(scenes: Path) -> Callable[..., Config]:
    """Settings for the scenes and a small network; keyword ``section__key`` sets ``section.key``."""

    def config(**changes: Any) -> Config:
        flags: dict[str, Any] = {
            "data.root": scenes,
            "model.backbone": "deit_tiny_distilled_patch16_224",
            "model.weights": "none",
            "model.vit": VIT,
            "model.decoder_channels": 16,
            "run.device": "cpu",
            "run.workers": 0,
            "augment.size": 32,
            "classify.finetune": "all",
            "classify.epochs": 2,
            "classify.batch_size": 8,
            "classify.lr": 1e-3,
            "segment.epochs": 2,
            "segment.rounds": 1,
            "segment.batch_size": 8,
            "segment.lr": 1e-3,
            "segment.decoder_lr_factor": 10,
            "segment.weight_energy": 1e-7,
            "maps.method": "getam",
            "maps.start_layer": 0,
            "maps.flip": False,
            "maps.scales": [48],
            "maps.gamma": 1.0,
            "maps.spread": 0,
            "labels.low": 0.25,
            "labels.high": 0.55,
            "labels.pamr_iterations": 2,
            "labels.opening": 3,
            "predict.scales": [48],
            "predict.flip": False,
        }
        return resolve(None, (), flags | {key.replace("__", "."): value for key, value in changes.items()})

    return config


@pytest.fixture
def small_network() -> Callable[..., Any]:
    """``small_network(backbone, classes, decoder=True, seed=0, **vit)``: seeded, in ``eval`` mode."""

    def build(
        backbone: str = "deit_tiny_distilled_patch16_224",
        classes: tuple[str, ...] = ("bee", "ladybird"),
        *,
        decoder: bool = True,
        readout: str = "auto",
        seed: int = 0,
        **vit: int,
    ) -> Any:
        import torch

        from wsss.models.network import build_network

        torch.manual_seed(seed)
        return build_network(
            backbone, classes, readout=readout, decoder=decoder, decoder_channels=16, vit={**VIT, **vit}
        ).eval()

    return build
