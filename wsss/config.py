"""The configuration: one frozen model for all commands, strict at the door.

Values come from the defaults below, then a YAML file or preset (``-c``), then ``--set key=value``, then flags;
later ones win. All mistakes are reported together, unknown keys with the nearest name there is. The resolved
config is written beside every output and is enough to repeat it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsss.errors import UsageError
from wsss.plain_yaml import load_yaml, read_yaml

Method = Literal["getam", "attention-gradient", "gradcam", "rollout", "chefer", "attention", "cam"]
Coupling = Literal["released", "paper"]
Rows = Literal["auto", "token", "pool", "both"]
ReadoutName = Literal["auto", "project", "token", "pool", "both"]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Sizes = Annotated[tuple[Positive, ...], Field(min_length=1)]

MOST_MISTAKES = 20
"""So many are told."""
brief = Repr()
brief.maxstring = brief.maxother = 200


class Section(BaseModel):
    """A frozen group of settings that knows no other keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataSection(Section):
    """Where images and tags come from."""

    root: Path | None = None
    layout: Literal["auto", "voc", "folder"] = "auto"
    tags: Path | None = None
    tags_from: Literal["auto", "file", "xml", "masks"] = "auto"
    train_split: str | None = None
    val_split: str | None = None
    saliency: Path | None = None
    bad_limit: Share = 0.01


class ModelSection(Section):
    """The network. ``weights`` is a file, "pretrained" (timm downloads it) or "none"."""

    backbone: str = "deit_small_patch16_224"
    weights: str = "pretrained"
    readout: ReadoutName = "auto"
    drop_path: Share = 0.0
    decoder_channels: Positive = 96
    vit: dict[str, int] = Field(default_factory=dict)
    """Overrides of the backbone's own arguments, for small networks trained from scratch."""


class RunSection(Section):
    """The machine and the seed."""

    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    amp: Literal["none", "bf16", "fp16"] = "none"
    workers: Annotated[int, Field(ge=0)] | None = None
    """Loader processes, and as many for the dense CRF; None takes one a core but one, at most 8."""
    deterministic: bool = False
    """Torch's deterministic algorithms alone; `wsss.machine.be_deterministic` says what that promises."""


class AugmentSection(Section):
    """Random resized crop, flip and colour jitter."""

    size: Positive = 224
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.4
    flip: Share = 0.5
    jitter: Share = 0.2


class Optimisation(Section):
    """Schedule and optimiser, common to both trainings.

    "adamw" warms up linearly and decays by a cosine to zero; "sgd-poly" decays by (1 - t)^0.9.
    """

    epochs: Positive = 10
    batch_size: Positive = 16
    optimizer: Literal["adamw", "sgd-poly"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Weight = 0.05
    momentum: Share = 0.9
    warmup: Share = 0.05
    """Share of the steps in which the rate rises from zero."""
    clip_norm: Weight = 1.0
    """Largest gradient norm; 0 clips nothing."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights, which is then what is validated and saved for use; 0 keeps none."""
    validate_every: Positive = 1
    """Epochs between two validations."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    """Steps between two checkpoints; 0 writes them by time, at every epoch's end and when stopped, alone."""
    on_bad_loss: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is no finite number does, to the run or to its step (`wsss.training.bad_loss`)."""


class ClassifySection(Optimisation):
    """`wsss train-cls`."""


class SegmentSection(Optimisation):
    """`wsss train-seg`."""

    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """As for `wsss train-cls`; end to end the average is also the teacher whose decoder pseudo labels hear."""
    rounds: Positive = 2
    """Trainings in a row: each but the last is the teacher whose labels of the training split the next one learns, from
    the same start (`wsss.training.start`). Only end to end; 1 is as published."""
    cls_share: Share = 0.5
    """Share of the epochs that only classify, before pseudo labels are made; end to end from scratch only."""
    maps_share: Share = 0.3
    """Share of the segmentation steps whose pseudo labels are made from class maps alone; later ones hear the decoder
    too (`wsss.labels.agreement`). 1 is as published."""
    lr_seg_factor: Annotated[float, Field(gt=0)] = 1.0
    """Learning rate of the segmentation phase relative to that of the classification phase."""
    decoder_lr_factor: Annotated[float, Field(gt=0)] = 10.0
    """Learning rate of the fresh decoder relative to the backbone's."""
    weight_classification: Weight = 1.0
    weight_saliency: Weight = 1.0
    """Takes part only where saliency is given. The cross-entropy terms have weight 1."""
    weight_energy: Weight = 0.0
    """Published: 1e-7, which takes small objects away here (benchmarks/RESULTS.md)."""
    sigma_rgb: Annotated[float, Field(gt=0)] = 15.0
    sigma_xy: Annotated[float, Field(gt=0)] = 100.0


class MapsSection(Section):
    """Class maps.

    ``scales`` are pixels: an image is resized, its aspect ratio kept, to the area of a square of that side.
    """

    method: Method = "getam"
    coupling: Coupling = "released"
    start_layer: Annotated[int, Field(ge=0)] = 0
    rows: Rows = "auto"
    gamma: Annotated[float, Field(gt=0)] = 0.5
    """Power the maps are raised to before they are spread; below 1 it lifts weak evidence, 1 is as published."""
    spread: Annotated[int, Field(ge=0)] = 1
    """Steps of spreading maps by the attention between patches; 0 is as published."""
    scales: Sizes = (224,)
    flip: bool = False
    batch_size: Positive = 8


class LabelsSection(Section):
    """From class maps to pseudo labels."""

    background: Literal["power", "band"] = "band"
    exponent: Annotated[float, Field(gt=0)] = 32.0
    low: Share = 0.6
    high: Share = 0.72
    """The band suits maps that were spread; published maps peak more, and the power rule suits them."""
    decoder: bool = True
    """`make-pseudo` from a run of train-seg: a pixel belongs to what maps and decoder agree on."""
    softness: Annotated[float, Field(gt=0)] = 0.1
    """Difference of class scores that changes the odds of the maps by a factor e, where the decoder is heard."""
    confidence: Share = 0.6
    """Joint probability of maps and decoder below which a pixel is ignored."""
    saliency_threshold: Share = 0.5
    mining_quantile: Share = 0.9
    opening: Annotated[int, Field(ge=0)] = 10
    """Side, in pixels, of the square that a foreground region must hold. `make-pseudo` opens labels of maps alone."""
    refine_side: Positive = 512
    """Images of a larger area than this squared are refined at that area, to bound time and memory."""
    pamr_iterations: Annotated[int, Field(ge=0)] = 10
    pamr_dilations: Sizes = (1, 2, 4, 8, 12, 24)
    pamr_stride: Positive = 1
    """Refine at one Nth of each side: less time and memory, coarser edges."""
    crf: bool = False

    @model_validator(mode="after")
    def _band_is_ordered(self) -> LabelsSection:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, got {self.low} > {self.high}")
        return self


class PredictSection(Section):
    """Segmentation of images without tags."""

    scales: Sizes = (224,)
    flip: bool = False
    crf: bool = False


class Config(Section):
    """Everything that decides a result."""

    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    run: RunSection = RunSection()
    augment: AugmentSection = AugmentSection()
    classify: ClassifySection = ClassifySection()
    segment: SegmentSection = SegmentSection(epochs=10)
    maps: MapsSection = MapsSection()
    labels: LabelsSection = LabelsSection()
    predict: PredictSection = PredictSection()

    def anchored(self) -> Config:
        """The same with the data's paths absolute, so that what is begun here can be gone on with from elsewhere."""
        paths = {name: getattr(self.data, name) for name in ("root", "tags", "saliency")}
        absolute = {name: path.absolute() for name, path in paths.items() if path is not None}
        return self.model_copy(update={"data": self.data.model_copy(update=absolute)})


def resolve(
    source: str | Path | None = None,
    assignments: Iterable[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Merge defaults, file, assignments and flags into one config.

    Args:
        source: a YAML file or the name of a preset ("demo"), or None.
        assignments: ``key=value`` with dotted keys; the value is read as YAML.
        flags: dotted key -> value; None values are flags that were not given.

    Raises:
        UsageError: every unknown key and bad value, together.
    """
    tree: dict[str, Any] = {} if source is None else _sections(source)
    given: list[str] = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: expected key=value", "wsss config show")
        given.append(key.strip())
        _merge(tree, _nested(key.strip(), load_yaml(text, f"--set {assignment}")))
    for key, value in (flags or {}).items():
        if value is not None:
            given.append(key)
            _merge(tree, _nested(key, value))
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _mistakes(error, source, given) from error


def to_yaml(config: Config) -> str:
    """The whole config as YAML; ``resolve`` reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def preset_names() -> tuple[str, ...]:
    """Names of the presets that ship with the package."""
    folder = resources.files("wsss.configs")
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


def known_keys() -> tuple[str, ...]:
    """All dotted keys."""
    return tuple(
        f"{name}.{field}"
        for name, section in Config.model_fields.items()
        for field in section.annotation.model_fields  # type: ignore[union-attr]
    )


def _sections(source: str | Path) -> dict[str, Any]:
    """What a file or preset says, not yet checked."""
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
    return tree


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


def _mistakes(error: ValidationError, source: str | Path | None, given: Sequence[str]) -> UsageError:
    """All mistakes in one error, those of the file before those of the command line."""
    in_file: list[str] = []
    typed: list[str] = []
    mistakes = error.errors()
    for item in mistakes[:MOST_MISTAKES]:
        key = ".".join(str(part) for part in item["loc"])
        was_typed = source is None or any(f"{one}.".startswith(f"{key}.") or key.startswith(f"{one}.") for one in given)
        (typed if was_typed else in_file).append(_explain(item))
    parts = [(str(source), in_file), ("the command line", typed)]
    problem = "; ".join(f"{where}: {'; '.join(some)}" for where, some in parts if some)
    problem += f"; and {len(mistakes) - MOST_MISTAKES} more mistakes" if len(mistakes) > MOST_MISTAKES else ""
    return UsageError(problem, f"wsss config check {source}" if in_file else "wsss config show")


def _explain(item: Any) -> str:
    """One pydantic error in our words."""
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        candidates = known_keys() if "." in key else tuple(Config.model_fields)
        near = difflib.get_close_matches(key, candidates, n=1, cutoff=0.5)
        return f"unknown key '{key}'" + (f" (did you mean '{near[0]}'?)" if near else "")
    if not item["msg"].startswith("Input should be "):
        return f"'{key}': {item['msg'].removeprefix('Value error, ')}"
    message = item["msg"].removeprefix("Input should be ").replace("greater than or equal to", "at least")
    return f"'{key}' must be {message}, got {brief.repr(item['input'])}"
