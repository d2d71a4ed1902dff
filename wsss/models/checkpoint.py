"""Checkpoint files: how they are written and checked, and networks built from them.

A checkpoint holds tensors and plain values alone. It is written under a temporary name and renamed, so that a file with
its final name is complete; it is read without running code, and its shapes are compared with its network before its
numbers are copied (`wsss.models.archive`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.overrides import TorchFunctionMode

from wsss.config import Config, config_from_plain
from wsss.data.masks import IGNORE_INDEX
from wsss.errors import DataError, UsageError
from wsss.files import whole
from wsss.models.archive import (
    first_line,
    map_archive,
    read_archive,
    read_metadata,
    read_safetensors,
    strange,
    tensors_in,
)
from wsss.models.backbone import difference
from wsss.models.network import Network, build_network
from wsss.reporting import first_few

FORMAT = 1
PARTS = ("kind", "classes", "config", "network")
"""Keys of every checkpoint."""
NORMALISATION = ("mean", "std")
"""Buffers of a network that normalise its images. Versions of timm may give a backbone other values than those that it
was trained with; a checkpoint of an earlier version does not hold them."""
Kind = Literal["classification", "segmentation"]
FILLING = frozenset(("fill_", "zero_", "copy_", "uniform_", "normal_", "erfinv_", "mul_", "add_", "div_", "clamp_"))
"""Tensor methods that initialise parameters."""
UNCHECKED = 2**30
"""Bytes of tensors up to which a checkpoint is read before its shapes are compared with its network."""
MOST_TIMES, MOST_BESIDE = 8, 2**20
"""All tensors of a checkpoint take at most MOST_TIMES the bytes of its network (the raw weights, their average and the
two moments of Adam make it 4) and MOST_BESIDE bytes."""


def save_checkpoint(path: Path, network: Network, config: Config, **state: Any) -> None:
    """Write the network, its classes, its config and further plain state."""
    with whole(path) as file:
        torch.save({**content_of(network, config), **state}, file)


def content_of(network: Network, config: Config) -> dict[str, Any]:
    """What every checkpoint holds of a network: tensors, which are not copied, and plain values."""
    return {
        "format": FORMAT,
        "kind": "segmentation" if network.decoder is not None else "classification",
        "classes": list(network.classes),
        "config": config.model_dump(mode="json"),
        "network": network.state_dict(),
        "supervision": list(network.supervision),
        "normalisation": {name: getattr(network, name).flatten().tolist() for name in NORMALISATION},
    }


def shared_content(network: Network, config: Config) -> dict[str, Any]:
    """What a file to share says of its network, plain values: all that its use needs, and no path of this machine."""
    used = config.model_dump(mode="json", include={"model", "augment", "maps", "labels", "predict", "crf"})
    used["model"]["weights"] = "none"
    used["data"] = {"levels": config.data.levels}
    return {
        "format": FORMAT,
        "kind": "segmentation" if network.decoder is not None else "classification",
        "classes": list(network.classes),
        "config": used,
        "supervision": list(network.supervision),
        "normalisation": {name: getattr(network, name).flatten().tolist() for name in NORMALISATION},
    }


def read_checkpoint(path: Path, *, numbers: bool = True) -> dict[str, Any]:
    """The content of a checkpoint file, or of the safetensors of `wsss export`, its tensors on the CPU.

    Args:
        path: the file.
        numbers: False leaves the tensors of a checkpoint in the file, for a look at its plain values.

    Raises:
        DataError: the file is missing, unreadable or no checkpoint of this program, or it is large and does not fit its
            network.
    """

    def check(content: Any) -> None:
        if not _has_parts(content):
            raise DataError(f"{path}: is no wsss checkpoint", "wsss train-cls --data DIR -o RUN")
        if sum(tensor.nbytes for tensor in tensors_in(content)) > UNCHECKED:
            _sketch(content, path)

    try:
        if path.suffix == ".safetensors":
            content: dict[str, Any] = _of_safetensors(path)
            check(content)
            return content
        if not numbers:
            content = map_archive(path)
            check(content)
            return content
        content = read_archive(path, check)
    except DataError:
        raise
    except Exception as error:  # torch raises many kinds for a broken file
        what, fix = strange(path) or (first_line(error), "wsss train-cls --data DIR -o RUN")
        raise DataError(f"{path}: cannot be read as a checkpoint ({what})", fix) from error
    return content


def find_checkpoint(run: Path, which: str = "last") -> Path:
    """The checkpoint file of a run folder; a path of a file is returned as it is.

    Raises:
        DataError: there is no such run, or it has no such checkpoint.
        UsageError: the path is one checkpoint of a run, and another one was asked for.
    """
    if run.is_file():
        if which != "last" and run.name == "last.pt":
            raise UsageError(f"{run} is the last checkpoint of its run, not the {which} one", f"take {run.parent}")
        return run
    if not run.is_dir():
        beside = sorted(path.parent.name for path in run.parent.glob(f"*/{which}.pt"))
        near = get_close_matches(run.name, beside, n=1)
        runs = f"; runs there: {first_few(beside)}" if beside else ""
        fix = f"take {run.parent / near[0]}" if near else "wsss train-cls --data DIR -o RUN"
        raise DataError(f"{run}: no such run{runs}", fix)
    path = run / f"{which}.pt"
    if not path.is_file():
        other = sorted(file.name for file in run.glob("*.pt"))
        if not other and not (run / "run.json").is_file():
            raise DataError(f"{run} is no run: it has no {which}.pt", "wsss train-cls --data DIR -o RUN")
        has = f"it has {', '.join(other)}" if other else "its training stopped before the first one was written"
        fix = f"--checkpoint {other[0].removesuffix('.pt')}" if other else f"rm -r {run}  # and train it again"
        raise DataError(f"{run} has no {which} checkpoint: {has}", fix)
    return path


def part_of(content: Mapping[str, Any], part: Literal["training", "task"], run: Path) -> dict[str, Any]:
    """What a training wrote into its checkpoint beside the network.

    Raises:
        DataError: the checkpoint holds weights alone, so its training cannot be resumed.
    """
    found = content.get(part)
    if not isinstance(found, dict):
        raise DataError(f"{run}: its checkpoint holds weights alone, no training to resume", f"--init {run}")
    return found


def load_network(run: Path, which: str = "last") -> tuple[Network, Config, Path]:
    """The network of a run folder or checkpoint file, in ``eval`` mode, its config and the path of the file."""
    path = find_checkpoint(run, which)
    network, config = network_from(read_checkpoint(path), path)
    return network, config, path


def network_from(content: Mapping[str, Any], where: Path) -> tuple[Network, Config]:
    """Build the network of a checkpoint in ``eval`` mode; every key and shape must match.

    Args:
        content: of the checkpoint.
        where: its path, for messages.

    Raises:
        DataError: its config is of another version, its tensors do not fit the config, or they take far more memory
            than its network needs.
    """
    sketch, config = _sketch(content, where)
    network = _in_memory(sketch, config)
    network.load_state_dict(content["network"])
    if "normalisation" in content:
        network.normalise_as(*(torch.tensor(content["normalisation"][name]) for name in NORMALISATION))
    network.supervision = tuple(content.get("supervision", ()))
    return network.eval(), config


def build_from(config: Config, classes: Sequence[str], *, decoder: bool, fresh: bool = True) -> Network:
    """The network that a config describes.

    Args:
        config: its ``model`` section describes the network.
        classes: foreground class names.
        decoder: whether it segments too.
        fresh: draw the random parts from the seed of the config and read the backbone's weights file; False leaves the
            values of the parameters open, for a checkpoint to fill.
    """
    model = config.model
    if fresh:
        torch.manual_seed(config.run.seed)
    return build_network(
        model.backbone,
        classes,
        model.weights if fresh and model.weights != "none" else None,
        readout=model.readout,
        decoder=decoder,
        decoder_channels=model.decoder_channels,
        drop_path=model.drop_path,
        vit=model.vit,
        attention=model.attention,
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Unfilled(TorchFunctionMode):
    """Skips the initialisation of tensors on the meta device: they have no values, yet it would take time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch for each operation."""
        if getattr(func, "__name__", "") in FILLING and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def _of_safetensors(path: Path) -> dict[str, Any]:
    """The content of a file of ``wsss export --safetensors``: its metadata, each value JSON, and its tensors.

    Raises:
        Exception: of any kind: it is no such file, or it is broken.
    """
    said = {key: json.loads(value) for key, value in read_metadata(path).items()}
    return {**said, "network": read_safetensors(path, lambda tensors: None)}


def _has_parts(content: Any) -> bool:
    """Whether a value is the content of a checkpoint: its keys and the types behind them."""
    supervision = content.get("supervision", []) if isinstance(content, dict) else None
    return (
        isinstance(content, dict)
        and content.get("format") == FORMAT
        and content.keys() >= {*PARTS}
        and content["kind"] in get_args(Kind)
        and isinstance(content["classes"], list)
        and all(isinstance(name, str) for name in content["classes"])
        and 1 <= len(content["classes"]) < IGNORE_INDEX
        and isinstance(content["network"], dict)
        and all(isinstance(key, str) for key in content["network"])
        and all(isinstance(value, Tensor) for value in content["network"].values())
        and isinstance(supervision, list)
        and all(isinstance(source, str) for source in supervision)
        and _normalises(content)
    )


def _normalises(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds the values of ``NORMALISATION``, three each and no deviation of 0, or none of them."""
    if "normalisation" not in content:
        return True
    values = content["normalisation"]
    return (
        isinstance(values, dict)
        and values.keys() == {*NORMALISATION}
        and all(isinstance(some, list) and len(some) == 3 for some in values.values())
        and all(isinstance(value, float) and math.isfinite(value) for some in values.values() for value in some)
        and all(value > 0 for value in values["std"])
    )


def _with_older_keys(config: Any) -> Any:
    """A config as it was meant: versions without ``finetune`` in a section trained all weights."""
    if not isinstance(config, Mapping):
        return config
    sections = {name: config.get(name, {}) for name in ("classify", "segment")}
    mended = {name: {"finetune": "all", **keys} for name, keys in sections.items() if isinstance(keys, Mapping)}
    return {**config, **mended}


def _sketch(content: Mapping[str, Any], where: Path) -> tuple[Network, Config]:
    """The network of a checkpoint on the meta device, where tensors take no memory, and its config.

    Raises:
        DataError: see ``network_from``.
    """
    try:
        config = config_from_plain(_with_older_keys(content["config"]))
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, item["loc"])) for item in error.errors()[:3])
        raise DataError(f"{where}: another version wrote its config ({keys[:300]})", "train it again") from error
    state = content["network"]
    most = max(config.model.vit.values(), default=0)
    if config.model.vit.get("depth", 0) > len(state) or most > sum(math.prod(value.shape) for value in state.values()):
        raise DataError(f"{where}: the tensors do not fit its config (model.vit {config.model.vit})", "train it again")
    try:
        with torch.device("meta"), Unfilled():
            sketch = build_from(config, content["classes"], decoder=content["kind"] == "segmentation", fresh=False)
    except Exception as error:  # a config that is no network's fails anywhere in timm and torch
        raise DataError(f"{where}: its config describes no network ({first_line(error)})", "train it again") from error
    problem = difference(sketch.state_dict(), state)
    needed = sum(value.nbytes for value in sketch.state_dict().values())
    if not problem and sum(tensor.nbytes for tensor in tensors_in(content)) > MOST_BESIDE + MOST_TIMES * needed:
        problem = f"more than {MOST_TIMES} times the {needed} bytes of its network"
    if problem:
        raise DataError(f"{where}: the tensors do not fit its config ({problem[:300]})", "train it again")
    return sketch, config


def _in_memory(sketch: Network, config: Config) -> Network:
    """The network of a sketch on the CPU; its parameters have no values yet."""
    named = (sketch.backbone, sketch.attention, sketch.readout, sketch.decoder)
    parts = [part for part in named if part is not None]
    if any(name not in part.state_dict() for part in parts for name, _ in part.named_buffers()):
        # Buffers that no checkpoint holds (rotary positions) get their values when the network is built.
        return build_from(config, sketch.classes, decoder=sketch.decoder is not None, fresh=False)
    for part in parts:
        part.to_empty(device="cpu")
    return Network(sketch.backbone, sketch.readout, sketch.decoder, sketch.classes, sketch.attention)
