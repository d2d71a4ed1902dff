"""The file of a learnt refiner: its numbers as safetensors, with their supervision and settings as metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as encode_safetensors
from torch import Tensor

from wsss.errors import DataError
from wsss.files import write_whole
from wsss.labels.pamr import DILATIONS
from wsss.labels.refiner import Refiner
from wsss.models.archive import first_line, read_metadata, read_safetensors, strange
from wsss.models.checkpoint import file_hash
from wsss.outputs.provenance import UNKNOWN, Supervision

KIND = "wsss refiner 1"
"""Key of the metadata, one text of JSON: with several keys their order in the file, and its hash, would be random."""
MOST_STEPS = 1000
"""More steps than this are those of no refiner."""
REFIT = "wsss fit-refiner RUN --data DIR --labels LABELS -o FILE"


@dataclass(frozen=True, slots=True)
class FittedRefiner:
    """A refiner that was read from a file.

    Attributes:
        refiner: on the CPU.
        sha256: of the file.
        supervision: what it was learnt from.
        about: all that its metadata say, plain values.
    """

    refiner: Refiner
    sha256: str
    supervision: Supervision
    about: Mapping[str, Any]

    def facts(self) -> dict[str, str]:
        """What a manifest says of it."""
        return {"refiner_sha256": self.sha256}


def write_refiner(path: Path, refiner: Refiner, about: Mapping[str, Any]) -> None:
    """Write a refiner; the file appears whole or not at all.

    Raises:
        DiskError: it cannot be written.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in refiner.state_dict().items()}
    write_whole(path, encode_safetensors(tensors, {KIND: json.dumps(dict(about))}))


def read_refiner(path: Path) -> FittedRefiner:
    """Read a file of ``wsss fit-refiner``.

    Raises:
        DataError: there is no such file, it is something else or damaged, a number is not finite, or it has another
            number of rings than PAMR.
    """
    if not path.is_file():
        what = "is a folder, a refiner is a file" if path.is_dir() else "no such refiner"
        raise DataError(f"{path}: {what}", REFIT)
    try:
        written = read_metadata(path).get(KIND)
        said = json.loads(written or "{}")
        tensors = read_safetensors(path, lambda tensors: None)
    except Exception as error:  # safetensors raises many kinds for a broken file
        what, fix = strange(path) or (first_line(error), REFIT)
        raise DataError(f"{path}: cannot be read as a refiner ({what})", fix) from error
    if written is None or not isinstance(said, dict):
        raise DataError(f"{path}: is no file of wsss fit-refiner", REFIT)
    refiner = _filled(path, tensors)
    told = said.get("supervision")
    named = isinstance(told, list) and all(isinstance(one, str) for one in told)
    supervision = tuple(told) if named and told else UNKNOWN
    return FittedRefiner(refiner, file_hash(path), supervision, said)


def _filled(path: Path, tensors: Mapping[str, Tensor]) -> Refiner:
    """A refiner with these numbers.

    Raises:
        DataError: they are not those of a refiner.
    """
    steps = len(tensors["stay"]) if "stay" in tensors and tensors["stay"].dim() == 1 else 0
    if not 1 <= steps <= MOST_STEPS:
        raise DataError(f"{path}: a refiner has 1 to {MOST_STEPS} steps, this file {steps}", REFIT)
    rings = tensors["contrast"].numel() if "contrast" in tensors else 0
    if rings != len(DILATIONS):
        what = f"{path}: learnt for {rings} rings of neighbours, PAMR has {len(DILATIONS)}"
        raise DataError(what, f"{REFIT}  # with this version")
    refiner = Refiner(steps=steps)
    expected = {name: tuple(value.shape) for name, value in refiner.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != expected:
        raise DataError(f"{path}: its tensors are {found}, those of a refiner {expected}", REFIT)
    bad = [name for name, value in tensors.items() if not value.is_floating_point() or not torch.isfinite(value).all()]
    if bad:
        raise DataError(f"{path}: {bad[0]} holds a number that is not finite", REFIT)
    refiner.load_state_dict(dict(tensors))
    return refiner.requires_grad_(requires_grad=False).eval()
