"""Checkpoints: tensors and plain values, written whole or not at all, loaded without running code."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import ValidationError
from torch import Tensor
from torch.overrides import TorchFunctionMode

from wsss.config import Config, config_from_plain
from wsss.data.masks import IGNORE_INDEX
from wsss.errors import DataError
from wsss.files import whole
from wsss.models.archive import Claim, claims_in, first_line, read_archive
from wsss.models.backbone import difference
from wsss.models.network import Network, build_network

FORMAT = 1
PARTS = ("kind", "classes", "config", "network")
"""What every checkpoint holds."""
Kind = Literal["classification", "segmentation"]
FILLING = frozenset(("fill_", "zero_", "copy_", "uniform_", "normal_", "erfinv_", "mul_", "add_", "div_", "clamp_"))
"""What initialisations do to a tensor."""
UNCHECKED = 2**30
"""Bytes of tensors up to which a checkpoint is read before its shapes are compared with its network."""
MOST_TIMES, MOST_BESIDE = 8, 2**20
"""A checkpoint holds at most so many times the memory of its network (Adam and a moving average make it 4), and bytes
beside."""


def save_checkpoint(path: Path, network: Network, config: Config, **state: Any) -> None:
    """Write the network, its classes, its config and any further plain state."""
    content = {
        "format": FORMAT,
        "kind": "segmentation" if network.decoder is not None else "classification",
        "classes": list(network.classes),
        "config": config.model_dump(mode="json"),
        "network": network.state_dict(),
        "supervision": list(network.supervision),
        **state,
    }
    with whole(path) as file:
        torch.save(content, file)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The plain content of a checkpoint, on the CPU.

    Raises:
        DataError: there is none, it is not one of ours, or it holds more than its network can need.
    """

    def check(claims: Any) -> None:
        _check_parts(claims, path)
        if sum(claim.nbytes for claim in claims_in(claims)) > UNCHECKED:
            _sketch(claims, path)

    try:
        content: dict[str, Any] = read_archive(path, check)
    except DataError:
        raise
    except Exception as error:  # torch raises many kinds for a broken file
        raise DataError(
            f"{path}: cannot be read as a checkpoint ({first_line(error)})",
            "wsss train-cls --data DIR -o RUN",
        ) from error
    return content


def find_checkpoint(run: Path, which: str = "last") -> Path:
    """The checkpoint file of a run folder; a file is taken as it is.

    Raises:
        DataError: the run has none.
    """
    if run.is_file():
        return run
    if not run.is_dir():
        beside = sorted(path.parent.name for path in run.parent.glob(f"*/{which}.pt"))
        near = get_close_matches(run.name, beside, n=1) or beside[:1]
        fix = f"take {run.parent / near[0]}" if near else "wsss train-cls --data DIR -o RUN"
        raise DataError(f"{run}: no such run", fix)
    path = run / f"{which}.pt"
    if not path.is_file():
        other = sorted(file.name for file in run.glob("*.pt"))
        if not other and not (run / "run.json").is_file():
            raise DataError(f"{run} is no run: it has no {which}.pt", "wsss train-cls --data DIR -o RUN")
        has = f"it has {', '.join(other)}" if other else "its training stopped before the first one was written"
        fix = f"--checkpoint {other[0].removesuffix('.pt')}" if other else f"rm -r {run}  # and train it again"
        raise DataError(f"{run} has no {which} checkpoint: {has}", fix)
    return path


def part_of(content: dict[str, Any], part: Literal["training", "task"], run: Path) -> dict[str, Any]:
    """What a training left in its checkpoint beside the network.

    Raises:
        DataError: nothing; the weights are all there is.
    """
    found = content.get(part)
    if not isinstance(found, dict):
        raise DataError(f"{run}: its checkpoint holds weights alone, no training to go on with", f"--init {run}")
    return found


def network_from(content: dict[str, Any], where: Path) -> tuple[Network, Config]:
    """Rebuild the network of a checkpoint, strictly, in ``eval`` mode.

    Raises:
        DataError: its config is of another version, or its tensors do not fit it.
    """
    sketch, config = _sketch(content, where)
    network = _in_memory(sketch, config)
    network.load_state_dict(content["network"])
    network.supervision = tuple(content.get("supervision", ()))
    return network.eval(), config


class Unfilled(TorchFunctionMode):
    """On the meta device, where tensors have no values, giving them some takes time none the less; here it does not."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called for each operation."""
        if getattr(func, "__name__", "") in FILLING and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def _check_parts(content: Any, where: Path) -> None:
    """Refuse what is no checkpoint; the values may be claims."""
    supervision = content.get("supervision", []) if isinstance(content, dict) else None
    fits = (
        isinstance(content, dict)
        and content.get("format") == FORMAT
        and content.keys() >= {*PARTS}
        and content["kind"] in get_args(Kind)
        and isinstance(content["classes"], list)
        and all(isinstance(name, str) for name in content["classes"])
        and 1 <= len(content["classes"]) < IGNORE_INDEX
        and isinstance(content["network"], dict)
        and all(isinstance(key, str) for key in content["network"])
        and all(isinstance(value, Claim | Tensor) for value in content["network"].values())
        and isinstance(supervision, list)
        and all(isinstance(source, str) for source in supervision)
    )
    if not fits:
        raise DataError(f"{where}: is no wsss checkpoint", "wsss train-cls --data DIR -o RUN")


def _sketch(content: dict[str, Any], where: Path) -> tuple[Network, Config]:
    """The network of a checkpoint, or of its claims, without memory for its tensors, and its config.

    Raises:
        DataError: see ``network_from``; or there are far more tensors than those of the network.
    """
    _check_parts(content, where)
    try:
        config = config_from_plain(content["config"])
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, item["loc"])) for item in error.errors()[:3])
        raise DataError(f"{where}: another version wrote its config ({keys[:300]})", "train it again") from error
    state = content["network"]
    most = max(config.model.vit.values(), default=0)
    if config.model.vit.get("depth", 0) > len(state) or most > sum(math.prod(value.shape) for value in state.values()):
        raise DataError(f"{where}: the tensors do not fit its config (model.vit {config.model.vit})", "train it again")
    try:
        with torch.device("meta"), Unfilled():
            sketch = _build(config, content["classes"], decoder=content["kind"] == "segmentation")
    except Exception as error:  # a config that is no network's fails anywhere in timm and torch
        raise DataError(f"{where}: its config describes no network ({first_line(error)})", "train it again") from error
    problem = difference(sketch.state_dict(), state)
    needed = sum(value.nbytes for value in sketch.state_dict().values())
    if not problem and sum(claim.nbytes for claim in claims_in(content)) > MOST_BESIDE + MOST_TIMES * needed:
        problem = f"more than {MOST_TIMES} times the {needed} bytes of its network"
    if problem:
        raise DataError(f"{where}: the tensors do not fit its config ({problem[:300]})", "train it again")
    return sketch, config


def _in_memory(sketch: Network, config: Config) -> Network:
    """The network of a sketch on the CPU; its parameters have no values yet."""
    parts = [part for part in (sketch.backbone, sketch.readout, sketch.decoder) if part is not None]
    if any(name not in part.state_dict() for part in parts for name, _ in part.named_buffers()):
        return _build(config, sketch.classes, decoder=sketch.decoder is not None)  # for what no checkpoint holds
    for part in parts:
        part.to_empty(device="cpu")
    return Network(sketch.backbone, sketch.readout, sketch.decoder, sketch.classes)


def _build(config: Config, classes: Sequence[str], *, decoder: bool) -> Network:
    model = config.model
    return build_network(
        model.backbone,
        classes,
        readout=model.readout,
        decoder=decoder,
        decoder_channels=model.decoder_channels,
        drop_path=model.drop_path,
        vit=model.vit,
    )


def load_network(run: Path, which: str = "last") -> tuple[Network, Config, Path]:
    """The network of a run folder (or checkpoint file), its config and the file it came from."""
    path = find_checkpoint(run, which)
    network, config = network_from(read_checkpoint(path), path)
    return network, config, path


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build_from(config: Config, classes: Sequence[str], *, decoder: bool) -> Network:
    """The network a config describes, its random parts drawn from the seed."""
    torch.manual_seed(config.run.seed)
    model = config.model
    return build_network(
        model.backbone,
        classes,
        None if model.weights == "none" else model.weights,
        readout=model.readout,
        decoder=decoder,
        decoder_channels=model.decoder_channels,
        drop_path=model.drop_path,
        vit=model.vit,
    )
