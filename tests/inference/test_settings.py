"""Settings of inference: what a run brings along, scales from its crops, and one set of defaults."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wsss
from wsss.config import Config, CrfSection, config_from_plain, known_keys, preset_names, resolve, to_yaml
from wsss.data.index import keep_readable
from wsss.inference.labeller import effective_labels
from wsss.inference.settings import (
    crf_facts,
    for_run,
    map_scales,
    map_words,
    predict_scales,
    predict_words,
    resolve_for,
    validation_side,
)
from wsss.labels.completion import BackgroundBand, PowerBackground, complete_labels
from wsss.labels.pamr import pamr
from wsss.labels.recipe import background_rule
from wsss.maps.generate import class_maps
from wsss.maps.recorder import MapSettings
from wsss.models.network import build_network


def test_scales_follow_the_crops() -> None:
    trained = resolve(None, (), {"augment.size": 320, "model.readout": "pool"})
    config = for_run(Config(), trained)
    assert (config.maps.scales, config.predict.scales) == ((457,), (320, 457))
    assert config.model == trained.model
    assert config.augment == Config().augment
    assert (map_scales(trained), predict_scales(trained)) == ((457,), (320, 457))
    assert (map_scales(Config()), predict_scales(Config())) == ((320,), (224, 320))


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


def checkpointed(*assignments: str, preset: str | None = None) -> Config:
    """A config as a checkpoint gives it back: every key is named."""
    return config_from_plain(resolve(preset, assignments).model_dump(mode="json"))


def test_a_run_brings_its_maps_labels_predict_and_crf() -> None:
    trained = checkpointed("crf.iterations=3", "labels.opening=4", preset="voc-animals-cpu")
    used = resolve_for(trained)
    assert (used.maps, used.labels, used.predict, used.crf) == (
        trained.maps,
        trained.labels,
        trained.predict,
        trained.crf,
    )
    assert (used.predict.scales, used.predict.flip) == ((224, 320), True)
    assert (used.maps.method, used.labels.low, used.crf.iterations) == ("attention-gradient", 0.66, 3)


def test_data_machine_and_trainings_do_not_come_from_the_run() -> None:
    trained = checkpointed(
        *("data.root=/photos", "data.saliency=/saliency", "data.format=voc"),
        *("run.device=cuda", "run.amp=bf16", "run.workers=3", "run.seed=9", "segment.epochs=77"),
    )
    used, default = resolve_for(trained), Config()
    assert (used.data, used.run, used.segment) == (default.data, default.run, default.segment)
    assert used.model == trained.model


def test_file_set_and_flags_come_after_the_run(tmp_path: Path) -> None:
    trained = checkpointed("predict.scales=[96]", "predict.flip=true", "crf.iterations=3", "crf.side=99")
    path = tmp_path / "c.yaml"
    path.write_text("predict: {scales: [64], crf: true}\ncrf: {iterations: 4}\n")
    used = resolve_for(trained, path, ["predict.crf=false"], {"predict.scales": [32], "predict.flip": None})
    assert used.predict.model_dump() == {"scales": (32,), "flip": True, "tile": 8192, "crf": False}
    assert (used.crf.iterations, used.crf.side) == (4, 99)
    assert resolve_for(trained, None, ["predict.scales=null"]).predict.scales == (224, 320)


def test_a_run_with_defaults_is_used_as_before() -> None:
    trained = checkpointed("augment.size=320")
    assert resolve_for(trained) == for_run(Config(), trained)
    assert resolve_for(trained).maps.scales == (457,)


def test_default_scales_of_version_0_1_0_follow_the_crops() -> None:
    """It wrote [224] into each checkpoint, and took 1.4 times the crops where no scales were given."""
    plain = resolve(None, ["augment.size=320", "maps.scales=[224]", "predict.scales=[224]"]).model_dump(mode="json")
    now = resolve_for(config_from_plain(plain))
    assert (now.maps.scales, now.predict.scales) == ((224,), (224,))
    del plain["crf"]
    early = resolve_for(config_from_plain(plain))
    assert (early.maps.scales, early.predict.scales) == ((457,), (320, 457))
    plain["predict"]["scales"] = [224, 320]
    assert resolve_for(config_from_plain(plain)).predict.scales == (224, 320)


def test_one_line_says_which_settings_are_used(small_network: Any) -> None:
    trained = checkpointed(preset="voc-animals-cpu")
    assert predict_words(resolve_for(trained), trained) == (
        "images at 224 and 320 px with flip, no CRF: the run's settings"
    )
    other = resolve_for(trained, None, ["predict.crf=true", "predict.scales=[96]", "maps.gamma=1"])
    assert predict_words(other, trained) == (
        "images at 96 px with flip, CRF: the run's settings except predict.scales, predict.crf"
    )
    labels = effective_labels(small_network(), other.labels)
    assert map_words(other, labels, trained) == (
        "class maps by attention-gradient from block 6 at 320 px with flip, background band 0.66 to 0.76, "
        "what the decoder agrees with, no CRF: the run's settings except maps.gamma"
    )
    power = resolve_for(trained, None, ["labels.background=power", "labels.exponent=8", "maps.flip=false"])
    labels = effective_labels(small_network(decoder=False), power.labels)
    assert map_words(power, labels, trained) == (
        "class maps by attention-gradient from block 6 at 320 px without flip, background power 8, no CRF: "
        "the run's settings except maps.flip, labels.background, labels.exponent"
    )


def test_the_library_has_the_defaults_of_the_config() -> None:
    """One set of defaults for rules, Python interface and commands; `class_maps` alone has published values."""
    config = Config()
    maps, labels = config.maps, config.labels
    assert MapSettings() == MapSettings.of(maps)
    assert background_rule(labels) == BackgroundBand()
    assert background_rule(labels.model_copy(update={"background": "power"})) == PowerBackground()
    for function, section, names in (
        (complete_labels, labels, ("saliency_threshold", "mining_quantile", "opening")),
        (class_maps, maps, ("coupling", "rows")),
        (build_network, config.model, ("readout", "drop_path", "decoder_channels")),
    ):
        for name in names:
            assert inspect.signature(function).parameters[name].default == getattr(section, name), name
    assert inspect.signature(pamr).parameters["iterations"].default == labels.pamr_iterations
    assert inspect.signature(keep_readable).parameters["limit"].default == config.data.bad_limit
    published = inspect.signature(class_maps).parameters
    names = ("method", "start_layer", "gamma", "spread")
    assert [published[name].default for name in names] == ["getam", 0, 1, 0]
    assert [getattr(maps, name) for name in names] == ["attention-gradient", None, 0.5, 1]


UNLIKE = {
    ("wsss.maps.generate.class_maps", "method"),  # the published maps
    ("wsss.maps.generate.class_maps", "gamma"),
    ("wsss.maps.generate.multiscale_scores", "flip"),  # the images as they are
    ("wsss.models.averaged.log_label_probabilities", "flip"),
    ("wsss.maps.generate.class_maps", "spread"),
    ("wsss.data.records.TaggedSet.__init__", "format"),  # the one that was recognised
    ("wsss.data.scenes.SceneSettings.__init__", "classes"),  # names of its own insects
    ("wsss.training.optimiser.make_optimizer", "decoder_lr_factor"),  # of a training without a decoder
    ("wsss.training.optimiser.parameter_groups", "decoder_lr_factor"),
}
"""Parameters whose defaults are not those of the key of their name."""


def test_no_function_has_another_default_than_the_key_of_its_name() -> None:
    """Of all functions and methods: a parameter that is called as a key has its default, None or none at all."""
    values: dict[str, list[Any]] = {}
    for key in known_keys():
        section, _, name = key.partition(".")
        values.setdefault(name, []).append(getattr(getattr(Config(), section), name))
    unlike, seen = set(), 0
    for module in pkgutil.walk_packages(wsss.__path__, "wsss."):
        if module.name.startswith(("wsss.cli", "wsss.configs", "wsss.__main__")):
            continue
        for where, function in functions_of(importlib.import_module(module.name)):
            for name, parameter in inspect.signature(function).parameters.items():
                if name in values and type(parameter.default) in map(type, values[name]):
                    seen += 1
                    if parameter.default not in values[name]:
                        unlike.add((where, name))
    assert unlike == UNLIKE
    assert seen > 20


def functions_of(module: Any) -> Iterator[tuple[str, Any]]:
    """The functions of a module and the methods of its classes, by dotted name."""
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(value):
            yield f"{module.__name__}.{name}", value
        elif inspect.isclass(value):
            for inner, method in vars(value).items():
                plain = getattr(method, "__func__", method)
                if inspect.isfunction(plain):
                    yield f"{module.__name__}.{name}.{inner}", plain


def test_a_network_setting_beside_a_run_is_said_to_have_no_effect(tmp_path: Path) -> None:
    said: list[str] = []
    trained = resolve(None, (), {"model.backbone": "deit_tiny_patch16_224", "model.drop_path": 0.1})
    (tmp_path / "c.yaml").write_text("model: {backbone: deit_tiny_patch16_224, weights: none, readout: pool}\n")
    config = resolve_for(
        trained, tmp_path / "c.yaml", ["model.decoder_channels=8", "model.drop_path=0"], {}, said.append
    )
    assert config.model == trained.model
    network = "not used, the network is that of the run (deit_tiny_patch16_224)"
    assert said == [f"model.decoder_channels, model.readout: {network}"]
