"""Options of the commands: those derived from config keys, and the few that belong to no key.

`configured` derives the options of a command from dotted config keys: name, type and help come from the key in
`wsss.sections`, so each is written once. What was given becomes one `Given`, which `Given.resolve` turns into a config.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from wsss.cli import completing
from wsss.config import Config, Reading, check_early, config_from_plain, field_of, resolve

ConfigOption = Annotated[
    list[str] | None,
    typer.Option(
        "-c",
        "--config",
        help="YAML file, or the name of a preset (wsss config list). Of several, later ones win.",
        metavar="FILE",
        autocompletion=completing.presets,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set any config key; overrides the files.",
        metavar="KEY=VALUE",
        autocompletion=completing.assignments,
    ),
]
RunOption = Annotated[Path | None, typer.Option("-o", "--output", help="Run folder to make.", metavar="RUN")]
OutOption = Annotated[Path, typer.Option("-o", "--output", help="Folder to write.", metavar="OUT")]
CheckpointOption = Annotated[
    str,
    typer.Option(help="Which checkpoint of the run: last or best.", autocompletion=completing.words("last", "best")),
]
PaletteOption = Annotated[
    str,
    typer.Option(
        help="Colours of the classes in pictures that are drawn now; label maps always have those of VOC.",
        metavar="voc|colorblind",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
ShardOption = Annotated[
    str | None,
    typer.Option(help="One part of N, the first is 0/N; wsss merge makes one whole of all.", metavar="I/N"),
]
RefinerOption = Annotated[
    Path | None,
    typer.Option(help="File of wsss fit-refiner: refine with it, in make-pseudo in place of PAMR.", metavar="FILE"),
]
ResumeOption = Annotated[
    Path | None,
    typer.Option(help="Resume this run, with its own config; --data says where its data were moved.", metavar="RUN"),
]
AgainOption = Annotated[
    bool,
    typer.Option("--resume-or-start", help="Resume the run of -o if this command began it; else begin it."),
]

NAMES = {"data.root": "data", "data.keep": "keep_class"}
"""Python names of options that differ from the name of their key."""
FLAGS = {"data.keep": "--class", "data.levels": "--range"}
"""Options that are not spelled as their Python name."""

READING = tuple(f"data.{name}" for name in Reading.model_fields)
"""Keys that say how a data folder is read; every command that opens one has their options."""
READING_PANEL = "How the data folder is read"
"""Heading of their part of the help."""

METAVARS = {
    "data.root": "DIR",
    "data.saliency": "DIR",
    "data.format": "NAME",
    "data.classes": "A,B,C",
    "data.tag_field": "NAME",
    "data.none": "NAME",
    "data.ignore": "NAME",
    "data.keep": "NAME",
    "data.columns": "USE=NAME",
    "data.encoding": "NAME",
    "data.levels": "LOW,HIGH",
    "data.bands": "R,G,B",
    "maps.method": "METHOD",
    "maps.tile": "PIXELS",
    "predict.tile": "PIXELS",
    "labels.pamr_stride": "N",
    "segment.rounds": "N",
    "classify.accumulate": "N",
    "segment.accumulate": "N",
    "run.verify_steps": "N",
}
"""Placeholders in the help; by default the choices of a key, or its type."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says about the config.

    Attributes:
        config: YAML file or name of a preset of each ``-c``; later ones win.
        assignments: ``key=value`` of each ``--set``.
        flags: dotted key -> value of each derived option; None where it was not given.
    """

    config: list[str]
    assignments: list[str]
    flags: Mapping[str, Any]

    def with_key(self, key: str, value: Any) -> Given:
        """The same with the value of an option that `configured` does not derive."""
        return replace(self, flags={**self.flags, key: value})

    def resolve(self) -> Config:
        """The config; flags override ``--set``, which overrides the files.

        Raises:
            UsageError: every unknown key and bad value, together.
        """
        return resolve(self.config, self.assignments, self.flags, _remark)

    def check(self) -> Config:
        """Check what was given before the run that it is for is read: each key by itself (``check_early``).

        Returns:
            The config of the sections that do not come from a run, and of the CRF switches that were given.

        Raises:
            UsageError: every unknown key and bad value, together.
        """
        tree = check_early(self.config, self.assignments, self.flags)
        crf = {name: {"crf": tree[name]["crf"]} for name in ("labels", "predict") if "crf" in tree.get(name, {})}
        return config_from_plain({name: tree.get(name, {}) for name in ("data", "run")} | crf)

    def resolve_for(self, trained: Config) -> Config:
        """The config for using a run: flags override ``--set``, which overrides the files, which override the run.

        Args:
            trained: the config in the checkpoint of the run.

        Raises:
            UsageError: every unknown key and bad value, together.
        """
        from wsss.inference.settings import resolve_for

        return resolve_for(trained, self.config, self.assignments, self.flags, _remark)

    def names(self) -> list[str]:
        """Config keys and options that were given, for error messages."""
        keys = [key for key, value in self.flags.items() if value is not None]
        return keys + ["--config"] * bool(self.config) + ["--set"] * bool(self.assignments)


def configured(
    *order: str, preset: str | None = None, **renamed: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a command whose first parameter is a `Given`: derive its options from config keys.

    Args:
        order: all parameters of the command as they appear in its help: dotted config keys, "config" (``-c``),
            "assignments" (``--set``), and the command's own parameters by name.
        preset: the config where no ``-c`` is given.
        renamed: option name -> dotted key, for keys whose option has another name in this command only; ``order``
            then has the option name.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        given_name, *own_names = (own := inspect.signature(command, eval_str=True).parameters)
        keys = {_option_name(name): renamed.get(name, name) for name in order if "." in renamed.get(name, name)}
        known = {name: own[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in own_names}
        known |= {name: _parameter(name, _option(key, name)) for name, key in keys.items()}
        known |= {"config": _parameter("config", ConfigOption, None if preset is None else [preset])}
        known |= {"assignments": _parameter("assignments", SetOption)}
        parameters = [known[_option_name(name)] for name in order]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            flags = {key: _value(key, values.pop(name)) for name, key in keys.items()}
            given = Given(values.pop("config", None) or [], values.pop("assignments", None) or [], flags)
            command(**{given_name: given}, **values)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _remark(text: str) -> None:
    from wsss.cli.terminal import remark

    remark(text)


def option_of(key: str) -> str:
    """The option of a config key; options stay as they are."""
    return key if key.startswith("-") else f"--{_option_name(key).replace('_', '-')}"


def _option_name(name: str) -> str:
    """The Python name of the parameter of a config key, or of an option that has a name already."""
    return NAMES.get(name, name.rpartition(".")[2])


def _parameter(name: str, annotation: Any, default: list[str] | None = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _option(key: str, name: str) -> Any:
    """The annotation of the option of a config key: its type, name and help.

    The config checks values, so that all mistakes are reported together: choices and number lists stay text here.
    """
    field = field_of(key)
    kind = _plain_type(field.annotation)
    flag = FLAGS.get(key, f"--{name.replace('_', '-')}")
    names = (f"{flag}/--no-{name.replace('_', '-')}",) if kind is bool else (flag,)
    help_text = " ".join((field.description or "").split("\n\n")[0].split())
    metavar = METAVARS.get(key) or _choices(field.annotation)
    panel = READING_PANEL if key in READING else None
    offer: completing.Offer | None = completing.read_formats if key == "data.format" else None
    if choices := _choices(field.annotation):
        offer = completing.words(*choices.split("|"))
    option = typer.Option(
        *names, help=help_text.replace("[", "\\["), metavar=metavar, rich_help_panel=panel, autocompletion=offer
    )
    return Annotated[Union[kind, None], option]  # noqa: UP007  # kind is a value


def _plain_type(annotation: Any) -> type:
    """bool, int, float, Path or str: the type of an option for a field."""
    options = _alternatives(annotation)
    return next((kind for kind in (bool, int, float, Path) if kind in options), str)


def _choices(annotation: Any) -> str | None:
    literal = next((one for one in _alternatives(annotation) if get_origin(one) is Literal), None)
    return None if literal is None else "|".join(get_args(literal))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union without None and without constraints; a type that is no union alone."""
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return tuple(get_args(one)[0] if get_origin(one) is Annotated else one for one in members if one is not type(None))


def _value(key: str, value: Any) -> Any:
    """The value for the config: comma-separated text of a list of numbers in its parts."""
    if isinstance(value, str) and any(get_origin(one) is tuple for one in _alternatives(field_of(key).annotation)):
        return [part.strip() for part in value.split(",")]
    return value
