"""Checkpoints: tensors and plain values, written whole or not at all, loaded without running code."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from wsss.config import Config
from wsss.errors import DataError
from wsss.models.network import Network, build_network

FORMAT = 1
PARTS = ("kind", "classes", "config", "network")
"""What every checkpoint holds."""
Kind = Literal["classification", "segmentation"]


def save_checkpoint(path: Path, network: Network, config: Config, **state: Any) -> None:
    """Write the network, its classes, its config and any further plain state."""
    content = {
        "format": FORMAT,
        "kind": "segmentation" if network.decoder is not None else "classification",
        "classes": list(network.classes),
        "config": config.model_dump(mode="json"),
        "network": network.state_dict(),
        **state,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The plain content of a checkpoint, on the CPU.

    Raises:
        DataError: there is none, or it is not one of ours.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a broken file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{path}: cannot be read as a checkpoint ({reason})", "wsss train-cls --data DIR -o RUN"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not content.keys() >= {*PARTS}:
        raise DataError(f"{path}: is no wsss checkpoint", "wsss train-cls --data DIR -o RUN")
    return content


def find_checkpoint(run: Path, which: str = "last") -> Path:
    """The checkpoint file of a run folder; a file is taken as it is.

    Raises:
        DataError: the run has none.
    """
    if run.is_file():
        return run
    if not run.is_dir():
        raise DataError(f"{run}: no such run", "wsss train-cls --data DIR -o RUN")
    path = run / f"{which}.pt"
    if not path.is_file():
        other = sorted(file.name for file in run.glob("*.pt"))
        has = f"it has {', '.join(other)}" if other else "its training stopped before the first one was written"
        fix = f"--checkpoint {other[0].removesuffix('.pt')}" if other else f"rm -r {run}  # and train it again"
        raise DataError(f"{run} has no {which} checkpoint: {has}", fix)
    return path


def network_from(content: dict[str, Any], where: Path) -> tuple[Network, Config]:
    """Rebuild the network of a checkpoint, strictly, in ``eval`` mode.

    Raises:
        DataError: its config is of another version, or its tensors do not fit it.
    """
    try:
        config = Config.model_validate(content["config"])
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, item["loc"])) for item in error.errors()[:3])
        raise DataError(f"{where}: another version wrote its config ({keys})", "train it again") from error
    network = build_network(
        config.model.backbone,
        content["classes"],
        readout=config.model.readout,
        decoder=content["kind"] == "segmentation",
        decoder_channels=config.model.decoder_channels,
        drop_path=config.model.drop_path,
        vit=config.model.vit,
    )
    try:
        network.load_state_dict(content["network"])
    except RuntimeError as error:
        keys = " ".join(str(error).split())[:300]
        raise DataError(f"{where}: the tensors do not fit its config ({keys})", "train it again") from error
    return network.eval(), config


def load_network(run: Path, which: str = "last") -> tuple[Network, Config, Path]:
    """The network of a run folder (or checkpoint file), its config and the file it came from."""
    path = find_checkpoint(run, which)
    network, config = network_from(read_checkpoint(path), path)
    return network, config, path


def for_run(config: Config, trained: Config) -> Config:
    """A config for using a trained network: its model section and, where no scales were given, its training size."""
    update: dict[str, Any] = {"model": trained.model}
    for name in ("maps", "predict"):
        section = getattr(config, name)
        if "scales" not in section.model_fields_set:
            update[name] = section.model_copy(update={"scales": (trained.augment.size,)})
    return config.model_copy(update=update)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
