"""Scales: from the crops of the training, unless the config names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsss.config import Config, CrfSection, preset_names, resolve, to_yaml
from wsss.inference.settings import crf_facts, for_run, map_scales, predict_scales, validation_side


def test_scales_follow_the_crops() -> None:
    trained = resolve(None, (), {"augment.size": 320, "model.readout": "pool"})
    config = for_run(Config(), trained)
    assert (config.maps.scales, config.predict.scales) == ((448,), (320,))
    assert config.model == trained.model
    assert config.augment == Config().augment
    assert (map_scales(trained), predict_scales(trained)) == ((448,), (320,))


def test_scales_that_are_named_stay() -> None:
    config = resolve(None, (), {"maps.scales": [224], "predict.scales": [100, 200]})
    used = for_run(config, resolve(None, (), {"augment.size": 320}))
    assert (used.maps.scales, used.predict.scales) == ((224,), (100, 200))


def test_the_config_beside_a_run_gives_the_same_scales(tmp_path: Path) -> None:
    """The file contains every key; scales that were not given are null in it."""
    trained = resolve(None, (), {"augment.size": 320})
    (tmp_path / "config.yaml").write_text(to_yaml(trained))
    assert for_run(resolve(tmp_path / "config.yaml"), trained) == for_run(Config(), trained).model_copy(
        update={"augment": trained.augment}
    )


@pytest.mark.parametrize("name", preset_names())
def test_presets_name_their_scales(name: str) -> None:
    config = resolve(name)
    assert config.maps.scales is not None
    assert config.predict.scales is not None


def test_the_validation_side() -> None:
    config = resolve(None, (), {"augment.size": 320, "segment.validate_size": 400})
    assert validation_side(config, config.classify) == 320
    assert validation_side(config, config.segment) == 400


def test_settings_of_the_crf_come_from_the_config() -> None:
    config = resolve(None, (), {"crf.iterations": 3, "crf.bilateral_srgb": 5})
    assert crf_facts(True, CrfSection()).keys() == crf_facts(True, config.crf).keys()
    assert crf_facts(True, config.crf)["crf_iterations"] == 3
    assert crf_facts(False, config.crf) == {}
