"""The config: precedence of its sources, error messages, and that its YAML reads back to the same config."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wsss.config import (
    RETIRED,
    Config,
    check_early,
    config_from_plain,
    field_of,
    known_keys,
    preset_names,
    resolve,
    to_yaml,
)
from wsss.errors import UsageError


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_beat_set_beats_file_beats_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "classify: {epochs: 2, lr: 0.2, batch_size: 2}\nrun: {seed: 2}\n")
    config = resolve(path, ["classify.lr=0.3", "classify.batch_size=3"], {"classify.batch_size": 4, "run.seed": None})
    assert config.classify.batch_size == 4
    assert config.classify.lr == 0.3
    assert config.classify.epochs == 2
    assert config.classify.momentum == Config().classify.momentum
    assert config.run.seed == 2  # a flag that was not given sets nothing


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    mine.write_text("maps: {method: getam, start_layer: 3}\n")
    other.write_text("maps: {start_layer: 8}\n")
    maps = resolve([mine, str(other)], ["maps.gamma=1"]).maps
    assert (maps.method, maps.start_layer, maps.gamma) == ("getam", 8, 1)
    assert resolve([other, mine]).maps.start_layer == resolve([mine, other, mine]).maps.start_layer == 3
    assert resolve(["demo", other]).model == resolve("demo").model


def test_a_mistake_is_that_of_the_file_whose_value_is_used(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    mine.write_text("run: {seed: -1}\nmaps: {spread: -1}\n")
    other.write_text("run: {seed: -2}\n")
    with pytest.raises(UsageError) as raised:
        resolve([mine, other], ["maps.gamma=0"])
    of_mine, of_other, typed = raised.value.problem.split("; ")
    assert of_mine.startswith(f"{mine}: 'maps.spread'")
    assert of_other.startswith(f"{other}: 'run.seed'")
    assert typed.startswith("the command line: 'maps.gamma'")
    assert raised.value.fix == f"wsss config show -c {mine} -c {other}"
    mine.write_text("labels: {low: 0.5}\n")
    other.write_text("labels: {high: 0.4}\n")
    with pytest.raises(UsageError, match=r"other.yaml: .*low must not exceed high"):
        resolve([mine, other])


def test_the_last_assignment_wins() -> None:
    assert resolve(None, ["run.seed=1", "run.seed=2"]).run.seed == 2


def test_assignments_are_yaml() -> None:
    config = resolve(None, ["maps.scales=[224, 320]", "maps.flip=true", "data.val_split=", "model.vit.depth=3"])
    assert config.maps.scales == (224, 320)
    assert config.maps.flip is True
    assert config.data.val_split is None
    assert config.model.vit == {"depth": 3}


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    path = written(
        tmp_path, "classify: {epohcs: 3, lr: -1}\nclasify: {}\nmaps: {method: getma}\nlabels: {low: 0.6, high: 0.5}\n"
    )
    with pytest.raises(UsageError) as caught:
        resolve(path, ["run.workers=-1"])
    problem = caught.value.problem
    assert problem.startswith(f"{path}: ")
    assert "unknown key 'classify.epohcs' (did you mean 'classify.epochs'?)" in problem
    assert "unknown key 'clasify' (did you mean 'classify'?)" in problem
    assert "'classify.lr' must be greater than 0, got -1" in problem
    assert "'maps.method'" in problem
    assert "'getam'" in problem
    assert "got 'getma'" in problem
    assert problem.endswith("; the command line: 'run.workers' must be at least 0, got -1")
    assert "low must not exceed high, got 0.6 > 0.5" in problem
    assert caught.value.fix == f"wsss config check {path}"
    assert caught.value.exit_status == 2


def test_mistakes_on_the_command_line_are_not_the_files(tmp_path: Path) -> None:
    path = written(tmp_path, "classify: {epochs: 3}\nlabels: {low: 0.2, high: 0.3}\n")
    for assignments, flags, said in (
        (["classify.epohcs=3"], {}, "unknown key 'classify.epohcs' (did you mean 'classify.epochs'?)"),
        (["trian.epochs=3"], {}, "unknown key 'trian'"),
        (["labels.low=0.5"], {}, "'labels': low must not exceed high, got 0.5 > 0.3"),
        ([], {"maps.scales": ["224", "x"]}, "'maps.scales.1'"),
    ):
        with pytest.raises(UsageError) as caught:
            resolve(path, assignments, flags)
        assert caught.value.problem.startswith(f"the command line: {said}")
        assert caught.value.fix == "wsss config show"


def test_band_in_order_and_equal() -> None:
    assert resolve(None, ["labels.low=0.4", "labels.high=0.4"]).labels.low == 0.4
    with pytest.raises(UsageError, match="low must not exceed high"):
        resolve(None, ["labels.low=0.41", "labels.high=0.4"])


@pytest.mark.parametrize("key", ["classify.lr", "segment.weight_energy", "labels.low"])
@pytest.mark.parametrize("value", [".nan", ".inf"])
def test_numbers_are_finite(key: str, value: str) -> None:
    with pytest.raises(UsageError, match=key):
        resolve(None, [f"{key}={value}"])


def test_nothing_far_off_is_suggested() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(None, ["zzzz.qqqq=1"])
    assert "unknown key 'zzzz'" in caught.value.problem
    assert "did you mean" not in caught.value.problem


def test_an_assignment_needs_a_value() -> None:
    with pytest.raises(UsageError, match=r"--set run\.seed: expected key=value"):
        resolve(None, ["run.seed"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classify: {epochs: 2", "not valid YAML"),
        ("- classify\n", "expected sections of keys, got list"),
        ("just words", "expected sections of keys, got str"),
        ("classify: 3\n", "'classify' must be"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        resolve(path)
    assert str(path) in caught.value.problem
    assert said in caught.value.problem
    assert "\n" not in caught.value.problem


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="cannot be read as text"):
        resolve(path)


def test_neither_file_nor_preset() -> None:
    with pytest.raises(UsageError, match="no such config file, and no preset of that name") as caught:
        resolve("nowhere.yaml")
    assert all(name in caught.value.problem for name in preset_names())


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert resolve(written(tmp_path, "# nothing\n")) == Config()


def test_a_file_is_read_before_a_preset_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = preset_names()[0]
    (tmp_path / name).write_text("run: {seed: 77}\n")
    monkeypatch.chdir(tmp_path)
    assert resolve(name).run.seed == 77


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**40),
    scales=st.lists(st.integers(1, 2000), min_size=1, max_size=4),
    lr=st.floats(1e-12, 1e3),
    energy=st.floats(0, 1e-3),
    root=st.none() | st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12),
    vit=st.dictionaries(st.sampled_from(["depth", "embed_dim", "patch_size"]), st.integers(1, 64)),
    flip=st.booleans(),
)
def test_yaml_reads_back_to_an_equal_config(
    tmp_path: Path,
    seed: int,
    scales: list[int],
    lr: float,
    energy: float,
    root: str | None,
    vit: dict[str, int],
    flip: bool,
) -> None:
    config = resolve(
        None,
        (),
        {
            "run.seed": seed,
            "maps.scales": scales,
            "classify.lr": lr,
            "segment.weight_energy": energy,
            "data.root": root,
            "model.vit": vit,
            "predict.flip": flip,
        },
    )
    assert config.maps.scales == tuple(scales)
    assert resolve(written(tmp_path, to_yaml(config))) == config


def test_yaml_names_every_key() -> None:
    tree = yaml.safe_load(to_yaml(Config()))
    assert {f"{section}.{key}" for section, keys in tree.items() for key in keys} == set(known_keys())


def test_known_keys_can_all_be_set() -> None:
    keys = known_keys()
    assert len(keys) == len(set(keys))
    assert {"data.root", "model.vit", "classify.lr", "segment.cls_share", "maps.method", "labels.crf"} <= set(keys)
    tree = yaml.safe_load(to_yaml(Config()))
    for key in keys:
        section, field = key.split(".")
        assert resolve(None, (), {key: tree[section][field]}) == Config()


def test_the_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().run.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", preset_names())
def test_presets_load_and_begin_with_their_command(name: str) -> None:
    config = resolve(name)
    assert config != Config()
    assert resolve(name, (), {"run.seed": 5}).run.seed == 5
    first = (Path(__file__).parents[1] / "configs" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# wsss ")
    assert f"-c {name}" in first or first.startswith(f"# wsss {name}")


def test_every_key_has_a_description() -> None:
    for key in known_keys():
        assert (field_of(key).description or "").endswith((".", ").")), key


def test_retired_keys_are_no_keys() -> None:
    assert not RETIRED.keys() & set(known_keys())


def old_plain() -> dict[str, dict[str, object]]:
    """A config written by an earlier version, with every key of that version."""
    tree: dict[str, dict[str, object]] = yaml.safe_load(to_yaml(Config()))
    for key, retired in RETIRED.items():
        section, name = key.split(".")
        tree[section][name] = retired.default
    return tree


def test_configs_of_earlier_versions_load(tmp_path: Path) -> None:
    """Config files in output folders and checkpoints contain every key, also keys that were removed since."""
    assert config_from_plain(old_plain()) == Config()
    assert resolve(written(tmp_path, yaml.safe_dump(old_plain()))) == Config()


@pytest.mark.parametrize("key", RETIRED)
def test_a_retired_key_with_another_value(tmp_path: Path, key: str) -> None:
    """A file with a removed key still works, with a remark; on the command line the key is an error."""
    section, name = key.split(".")
    path = written(tmp_path, f"{section}: {{{name}: 77}}\n")
    said: list[str] = []
    assert resolve(path, say=said.append) == Config()
    assert said == [f"{path}: '{key}' was removed from wsss and is ignored: {RETIRED[key].instead}"]
    with pytest.warns(UserWarning, match="was removed"):
        resolve(path)
    tree = {section: {name: 77}}
    if RETIRED[key].decides:
        with pytest.raises(UsageError) as caught:
            resolve(None, (f"{key}=77",))
        assert caught.value.problem == f"the command line: '{key}' was removed from wsss: {RETIRED[key].instead}"
        with pytest.raises(ValidationError, match=name):
            config_from_plain(tree)
    else:
        assert config_from_plain(tree) == Config()


@pytest.mark.parametrize("tree", [None, [], "maps", {"maps": [1]}, {"maps": None}, {3: {}}])
def test_plain_values_that_are_no_config(tree: object) -> None:
    with pytest.raises(ValidationError):
        config_from_plain(tree)  # type: ignore[arg-type]


def test_anchored_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--resume may start a teacher without a checkpoint again, and from another working directory."""
    monkeypatch.chdir(tmp_path)
    flags = {"data.root": "photos", "data.tags": tmp_path / "tags.csv", "model.weights": "weights/deit.safetensors"}
    config = resolve(None, (), flags).anchored()
    assert config.data.root == tmp_path / "photos"
    assert config.data.tags == tmp_path / "tags.csv"
    assert config.data.saliency is None
    assert config.model.weights == str(tmp_path / "weights" / "deit.safetensors")
    assert config.anchored() == config


@pytest.mark.parametrize("word", ["pretrained", "none"])
def test_words_that_are_no_weights_file_stay(word: str) -> None:
    assert resolve(None, (), {"model.weights": word}).anchored().model.weights == word


def test_a_base_comes_before_file_assignments_and_flags(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("maps: {method: cam, scales: [300]}\nrun: {seed: 4}\n")
    base = {"maps": {"method": "rollout", "scales": (96,), "start_layer": 2, "flip": True}, "predict": {"flip": True}}
    config = resolve(tmp_path / "c.yaml", ["maps.start_layer=1"], {"maps.scales": [64]}, base=base)
    assert (config.maps.method, config.maps.start_layer, config.maps.scales) == ("cam", 1, (64,))
    assert (config.maps.flip, config.predict.flip, config.run.seed) == (True, True, 4)
    assert base["maps"] == {"method": "rollout", "scales": (96,), "start_layer": 2, "flip": True}
    assert resolve(None, ["maps.scales=null"], {"maps.flip": False}, base=base).maps.scales is None


def test_keys_are_checked_one_by_one_before_the_base_is_known() -> None:
    """A base may hold the other end of a band, so that alone is no mistake yet."""
    assert check_early(None, ["labels.low=0.8"], {"run.device": None}) == {"labels": {"low": 0.8}}
    assert resolve(None, ["labels.low=0.8"], base={"labels": {"high": 0.9}}).labels.high == 0.9
    with pytest.raises(UsageError, match=r"'labels': low must not exceed high, got 0.8 > 0.76"):
        resolve(None, ["labels.low=0.8"])
    with pytest.raises(UsageError, match=r"'labels.high' must be .* 1, got 2; unknown key 'labels.lwo'"):
        check_early(None, ["labels.lwo=0.8", "labels.high=2"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classify:\n  epochs: 3\nclassify:\n  lr: 0.1\n", "'classify' stands twice, in lines 1 and 3"),
        ("classify:\n  lr: 0.1\n  epochs: 3\n  lr: 0.2\n", "'lr' stands twice, in lines 2 and 4"),
        ("classify.lr: 0.1\n", "write 'classify:' and below it, indented, 'lr: ...'"),
        ("classify:\n  epochs: yes\n", "epochs must not be true or false (YAML reads yes, no, on and off as these)"),
        ("predict:\n  scales: 48\n", "must be a list in brackets, such as [48, 64]"),
        ("data:\n  classes: [yes, no]\n", "must be text, in quotes, got True"),
    ],
)
def test_what_yaml_hides_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        resolve(written(tmp_path, text))


def test_a_section_whose_lines_are_comments_changes_nothing(tmp_path: Path) -> None:
    assert resolve(written(tmp_path, "classify:\n#  epochs: 3\n")) == Config()
