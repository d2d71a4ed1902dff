"""Read a config: defaults, then YAML files or presets (``-c``), then ``--set key=value``, then flags; later ones win.

Where a trained network is used, its run's own settings come before the file (`wsss.inference.settings.resolve_for`).

The keys themselves are in `wsss.sections` and `wsss.reading`. All mistakes are reported together, unknown keys with the
nearest known name. The resolved config is written beside every output and is enough to repeat it.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from reprlib import Repr
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from wsss.errors import UsageError
from wsss.plain_yaml import dump_yaml, load_yaml, read_yaml
from wsss.reading import Reading, TagsFrom
from wsss.section import Section
from wsss.sections import (
    AugmentSection,
    ClassifySection,
    Config,
    Coupling,
    CrfSection,
    DataSection,
    LabelsSection,
    MapsSection,
    Method,
    ModelSection,
    Optimisation,
    PredictSection,
    ReadoutName,
    Rows,
    RunSection,
    SegmentSection,
)

__all__ = [
    "RENAMED",
    "RETIRED",
    "AugmentSection",
    "ClassifySection",
    "Config",
    "Coupling",
    "CrfSection",
    "DataSection",
    "LabelsSection",
    "MapsSection",
    "Method",
    "ModelSection",
    "Optimisation",
    "PredictSection",
    "Reading",
    "ReadoutName",
    "Retired",
    "Rows",
    "RunSection",
    "Section",
    "SegmentSection",
    "TagsFrom",
    "check_early",
    "config_from_plain",
    "field_of",
    "known_keys",
    "preset_names",
    "resolve",
    "to_yaml",
]

MOST_MISTAKES = 20
"""Largest number of mistakes that one error lists."""
Source = str | Path | Sequence[str | Path] | None
"""A YAML file or the name of a preset ("demo"), several of them, of which later ones win, or None."""
brief = Repr()
brief.maxstring = brief.maxother = 200


@dataclass(frozen=True, slots=True)
class Retired:
    """A key of an earlier version.

    Attributes:
        default: its old default, as YAML reads it. Files of earlier versions name every key, so this value is dropped
            without a remark. Another value is dropped with one; it is an error on the command line and in checkpoints.
        instead: what to do now; it ends the remark or error.
        decides: whether it ever changed a result. A checkpoint may have any value of a key that did not.
    """

    default: Any
    instead: str
    decides: bool = True


RETIRED: Mapping[str, Retired] = {
    "maps.batch_size": Retired(8, "remove it; run.batch_pixels bounds the pixels of a batch", decides=False),
    "classify.checkpoint_steps": Retired(
        0, "remove it; classify.checkpoint_minutes sets their distance", decides=False
    ),
    "segment.checkpoint_steps": Retired(0, "remove it, or set segment.checkpoint_minutes", decides=False),
    "segment.weight_classification": Retired(1.0, "remove it; the classification loss has weight 1"),
    "segment.weight_saliency": Retired(1.0, "remove it; the saliency loss has weight 1"),
    "labels.refine_side": Retired(512, "remove it; larger images are refined at the area of 512 x 512 pixels"),
    "labels.pamr_dilations": Retired([1, 2, 4, 8, 12, 24], "remove it; PAMR uses 1, 2, 4, 8, 12 and 24 pixels"),
}
"""Keys of earlier versions, by dotted name."""

RENAMED: Mapping[str, str] = {"data.layout": "data.format"}
"""New names of keys that an earlier version called otherwise; both are read."""


def resolve(
    source: Source = None,
    assignments: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = warnings.warn,
    *,
    base: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Merge defaults, base, files, assignments and flags into one config.

    Args:
        source: files or presets; see ``Source``.
        assignments: ``key=value`` with dotted keys; the value is read as YAML.
        flags: dotted key -> value; None values are flags that were not given.
        say: called with a remark for each retired key of a file, which is ignored.
        base: section -> key -> value, used for keys that neither files, assignments nor flags name.

    Raises:
        UsageError: every unknown key and bad value, and every retired key that is assigned, together.
    """
    read = _read(source, say)
    tree, given = _merged(read, assignments, flags or {}, base or {})
    try:
        return config_from_plain(tree)
    except ValidationError as error:
        raise _mistakes(error.errors(), read, given) from error


def check_early(source: Source, assignments: Iterable[str], flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Check what `resolve` will be given before its ``base`` is known: every key and value by itself.

    Two keys that do not fit together are left to `resolve`, since the base may hold one of them.

    Returns:
        Section -> key -> value of what was given, not converted.

    Raises:
        UsageError: every unknown key and bad value, and every retired key that is assigned, together.
    """
    read = _read(source, lambda text: None)
    tree, given = _merged(read, assignments, flags or {}, {})
    try:
        config_from_plain(tree)
    except ValidationError as error:
        mistakes = [item for item in error.errors() if len(item["loc"]) > 1 or item["type"] != "value_error"]
        if mistakes:
            raise _mistakes(mistakes, read, given) from error
    return tree


def _read(source: Source, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """The sections of each file or preset by its name, in their order, not checked, without retired keys."""
    trees: dict[str, dict[str, Any]] = {}
    for one in [source] if isinstance(source, str | Path) else source or ():
        trees.pop(str(one), None)  # of one that is named twice, the second place counts
        trees[str(one)] = _with_new_names(_sections(one))
    for name, tree in trees.items():
        for key, retired in RETIRED.items():
            section, _, last = key.partition(".")
            keys = tree.get(section)
            if isinstance(keys, dict) and last in keys and keys.pop(last) != retired.default:
                say(f"{name}: '{key}' was removed from wsss and is ignored: {retired.instead}")
    return trees


def _merged(
    read: Mapping[str, Mapping[str, Any]],
    assignments: Iterable[str],
    flags: Mapping[str, Any],
    base: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], list[str]]:
    """Section -> key -> value of all sources, not checked, and the dotted keys that the command line gave."""
    tree: dict[str, Any] = {}
    for one in (base, *read.values()):
        _merge(tree, one)
    given: list[str] = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: expected key=value", "wsss config show")
        name = RENAMED.get(key.strip(), key.strip())
        given.append(name)
        _merge(tree, _nested(name, load_yaml(text, f"--set {assignment}")))
    for key, value in flags.items():
        if value is not None:
            given.append(key)
            _merge(tree, _nested(key, value))
    return tree, given


def config_from_plain(tree: Mapping[str, Any]) -> Config:
    """The config of plain sections and keys, of this or an earlier version, such as a checkpoint holds.

    Args:
        tree: section -> key -> value. Missing keys take their defaults; see ``Retired`` for keys that were removed.

    Raises:
        ValidationError: an unknown key, a retired key with another value, or a bad value.
    """
    if isinstance(tree, Mapping):
        tree = {name: _without_retired(name, keys) for name, keys in _with_new_names(tree).items()}
    return Config.model_validate(tree)


def to_yaml(config: Config) -> str:
    """The whole config as YAML; ``resolve`` reads it back to an equal config."""
    return dump_yaml(config.model_dump(mode="json"))


def preset_names() -> tuple[str, ...]:
    """Names of the presets that ship with the package."""
    folder = resources.files("wsss.configs")
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


def known_keys() -> tuple[str, ...]:
    """All dotted keys."""
    return tuple(f"{name}.{key}" for name in Config.model_fields for key in _fields_of(name))


def plain_settings(config: Config, but: Collection[str] = ()) -> dict[str, Any]:
    """The value of each dotted key as JSON has it, without those of some keys."""
    tree = config.model_dump(mode="json")
    keys = (key.partition(".") for key in known_keys() if key not in but)
    return {f"{section}.{name}": tree[section][name] for section, _, name in keys}


def field_of(key: str) -> FieldInfo:
    """Type, default and description of a dotted key.

    Raises:
        KeyError: there is no such key.
    """
    section, _, name = key.partition(".")
    return _fields_of(section)[name]


def _fields_of(section: str) -> Mapping[str, FieldInfo]:
    annotation = Config.model_fields[section].annotation
    assert isinstance(annotation, type)
    assert issubclass(annotation, Section)
    return annotation.model_fields


def _with_new_names(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The sections with the new name of each key that was renamed."""
    sections = dict(tree)
    for old, new in RENAMED.items():
        section, _, name = old.partition(".")
        keys = sections.get(section)
        if isinstance(keys, Mapping) and name in keys:
            sections[section] = {new.partition(".")[2] if key == name else key: value for key, value in keys.items()}
    return sections


def _without_retired(section: str, keys: Any) -> Any:
    """The keys of a section without those retired keys that can be left out."""
    if not isinstance(keys, Mapping):
        return keys
    return {key: value for key, value in keys.items() if not _can_be_left_out(f"{section}.{key}", value)}


def _can_be_left_out(key: str, value: Any) -> bool:
    """Whether a key is retired and had its old default, or never changed a result."""
    plain = list(value) if isinstance(value, tuple) else value
    return key in RETIRED and (not RETIRED[key].decides or bool(plain == RETIRED[key].default))


def _sections(source: str | Path) -> dict[str, Any]:
    """The sections of a file or preset, not yet checked."""
    if Path(source).is_file():
        tree = read_yaml(source)
    elif str(source) in preset_names():
        text = resources.files("wsss.configs").joinpath(f"{source}.yaml").read_text(encoding="utf-8")
        tree = load_yaml(text, str(source))
    else:
        raise UsageError(
            f"{source}: no such config file, and no preset of that name ({', '.join(preset_names())})",
            "wsss config list",
        )
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{source}: expected sections of keys, got {type(tree).__name__}", "wsss config show")
    return {key: {} if section is None else section for key, section in tree.items()}  # all its lines are comments


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _mistakes(mistakes: Sequence[Any], read: Mapping[str, Mapping[str, Any]], given: Sequence[str]) -> UsageError:
    """One error with all mistakes, those of the files before those of the command line."""
    said: dict[str, list[str]] = {name: [] for name in (*read, "the command line")}
    for item in mistakes[:MOST_MISTAKES]:
        key = ".".join(str(part) for part in item["loc"])
        was_typed = not read or any(f"{one}.".startswith(f"{key}.") or key.startswith(f"{one}.") for one in given)
        said["the command line" if was_typed else _file_of(item["loc"], read)].append(_explain(item))
    problem = "; ".join(f"{where}: {'; '.join(some)}" for where, some in said.items() if some)
    problem += f"; and {len(mistakes) - MOST_MISTAKES} more mistakes" if len(mistakes) > MOST_MISTAKES else ""
    wrong = [name for name in read if said[name]]
    if wrong and len(read) > 1:  # each may be right by itself
        return UsageError(problem, f"wsss config show {' '.join(f'-c {name}' for name in read)}")
    return UsageError(problem, f"wsss config check {wrong[0]}" if wrong else "wsss config show")


def _file_of(place: Sequence[str | int], read: Mapping[str, Mapping[str, Any]]) -> str:
    """The last file that names a key, which is the one whose value is used; the last of all where none does."""

    def names_it(tree: Any) -> bool:
        for part in place:
            if not isinstance(tree, Mapping):  # an element of a value
                return True
            if part not in tree:
                return False
            tree = tree[part]
        return True

    last_first = [*read][::-1]
    return next((name for name in last_first if names_it(read[name])), last_first[0])


def _explain(item: Any) -> str:
    """One pydantic error in plain words."""
    key = ".".join(str(part) for part in item["loc"])
    if key in RETIRED:
        return f"'{key}' was removed from wsss: {RETIRED[key].instead}"
    if item["type"] == "extra_forbidden":
        candidates = known_keys() if "." in key else tuple(Config.model_fields)
        if len(item["loc"]) == 1 and key in candidates:
            section, _, name = key.partition(".")
            return f"'{key}' is written as one word; in a file write '{section}:' and below it, indented, '{name}: ...'"
        near = difflib.get_close_matches(key, candidates, n=1, cutoff=0.5)
        return f"unknown key '{key}'" + (f" (did you mean '{near[0]}'?)" if near else "")
    if not item["msg"].startswith("Input should be "):
        return f"'{key}': {item['msg'].removeprefix('Value error, ')}"
    message = item["msg"].removeprefix("Input should be ").replace("greater than or equal to", "at least")
    if item["type"] == "tuple_type":
        message = "a list in brackets, such as [48, 64]"
    if item["type"] == "string_type" and not isinstance(item["input"], str):
        message = "text, in quotes"
    return f"'{key}' must be {message}, got {brief.repr(item['input'])}"
