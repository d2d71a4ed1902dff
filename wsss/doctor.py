"""`wsss doctor`: what this machine has and lacks, each with the command that mends it. Nothing is downloaded."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

import timm
import torch

from wsss.config import Config
from wsss.cores import usable_cores
from wsss.data.dataset import list_splits, open_data
from wsss.data.findings import telling
from wsss.errors import WsssError
from wsss.machine import num_workers

Status = Literal["ok", "note", "bad"]
"""Fine; works, but something is not there; does not work."""

LIBRARIES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "pillow", "pydantic", "typer", "rich")
EXTRAS = {
    "crf": ("pydensecrf", "the dense CRF (--crf)"),
    "geo": ("rasterio", "GeoTIFF"),
    "heif": ("pillow_heif", "HEIC photos"),
    "onnx": ("onnxruntime", "wsss export --onnx, wsss predict --onnx"),
}
"""Extra -> the module that it brings, and what that is for."""
LEAST_DISK, LEAST_MEMORY = 2 * 2**30, 4 * 2**30
"""Bytes below which a training of photos is likely to fail."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        status: see ``Status``.
        found: what is there.
        mend: a command or short instruction; empty where nothing is to be done.
    """

    name: str
    status: Status
    found: str
    mend: str = ""


def examine(config: Config, folder: Path) -> list[Check]:
    """All checks.

    Args:
        config: its data section says which data are opened, where a root is given; its model section which weights.
        folder: where outputs go.
    """
    parts = (_versions(), _devices(), _cores(config), _memory(), _disk(folder), _pieces(), _weights(config))
    return [check for part in (*parts, _data(config), _locale()) for check in part]


def _versions() -> Iterator[Check]:
    yield Check(name="python", status="ok", found=f"{platform.python_version()} ({sys.executable})")
    for name in ("wsss", *LIBRARIES):
        try:
            yield Check(name=name, status="ok", found=metadata.version(name))
        except metadata.PackageNotFoundError:
            near = "opencv-python" if name.startswith("opencv") and util.find_spec("cv2") else None
            found = f"not installed by pip{f', {near} may be' if near else ''}"
            yield Check(name=name, status="note", found=found, mend="" if near else f"pip install {name}")


def _devices() -> Iterator[Check]:
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            found = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
            yield Check(name=f"cuda:{number}", status="ok", found=found)
    elif shutil.which("nvidia-smi"):
        what = f"a driver is there, but torch {torch.__version__} finds no GPU"
        yield Check(
            name="cuda", status="bad", found=what, mend="nvidia-smi  # then install a torch for its CUDA version"
        )
    else:
        yield Check(name="cuda", status="note", found="no GPU: everything runs on the CPU", mend="")


def _cores(config: Config) -> Iterator[Check]:
    usable, every = usable_cores(), os.cpu_count() or 1
    quota = "" if usable == every else f" of {every}; affinity, a quota or a Slurm job allows no more"
    yield Check(name="cores", status="ok", found=f"{usable}{quota}")
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > usable:
        found = f"OMP_NUM_THREADS={asked}, more than the cores: they wait for each other"
        yield Check(name="threads", status="bad", found=found, mend="unset OMP_NUM_THREADS")
    else:
        yield Check(name="threads", status="ok", found=str(min(torch.get_num_threads(), usable)))
    workers = num_workers(config.run)
    lacks = workers == 0 and usable > 1 and config.run.workers is None
    mend = "docker run --shm-size=1g ...  # loader processes need /dev/shm" if lacks else ""
    yield Check(name="loader processes", status="note" if lacks else "ok", found=str(workers), mend=mend)


def _memory() -> Iterator[Check]:
    limit = memory_limit()
    if limit is not None:
        mend = "--set segment.batch_size=4 --set run.batch_pixels=65536" if limit < LEAST_MEMORY else ""
        yield Check(name="memory", status="note" if mend else "ok", found=f"{limit / 2**30:.1f} GiB", mend=mend)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process may use: the machine's, or less in a container; None where unknown.

    Args:
        root: the folder that holds ``proc`` and ``sys``; tests name another.
    """
    found = []
    for path, unit in (("proc/meminfo", 1024), ("sys/fs/cgroup/memory.max", 1)):
        try:
            words = (root / path).read_text("utf-8", "replace").split()
        except OSError:
            continue
        number = words[1] if words[:1] == ["MemTotal:"] else (words or [""])[0]
        found += [int(number) * unit] if number.isdecimal() else []
    return min(found, default=None)


def _disk(folder: Path) -> Iterator[Check]:
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())
    free = shutil.disk_usage(there).free
    writable = os.access(there, os.W_OK)
    status: Status = "ok" if writable and free >= LEAST_DISK else "bad"
    mend = "" if status == "ok" else "free some space there" if writable else "choose a folder you may write to"
    found = f"{free / 2**30:.0f} GiB free at {there}{'' if writable else ', which cannot be written'}"
    yield Check(name="disk", status=status, found=found, mend=mend)


def _pieces() -> Iterator[Check]:
    for extra, (module, what) in EXTRAS.items():
        there = util.find_spec(module) is not None
        mend = "" if there else f"pip install 'wsss[{extra}]'"
        found = f"{'there' if there else 'not installed'}: {what}"
        yield Check(name=extra, status="ok" if there else "note", found=found, mend=mend)


def _weights(config: Config) -> Iterator[Check]:
    name, weights = config.model.backbone, config.model.weights
    if weights == "none":
        return
    if weights != "pretrained":
        there = Path(weights).is_file()
        found = f"{weights}{'' if there else ': no such file'}"
        mend = "" if there else "--weights FILE|pretrained|none"
        yield Check(name="weights", status="ok" if there else "bad", found=found, mend=mend)
        return
    if not timm.is_model(name):
        yield Check(name="weights", status="bad", found=f"timm has no model {name}", mend="wsss backbones")
        return
    if _is_cached(name):
        yield Check(name="weights", status="ok", found=f"those of {name} are in the cache of the hub")
        return
    found = f"those of {name} are not in the cache: the first train-cls downloads them"
    yield Check(name="weights", status="note", found=found, mend="--weights FILE.safetensors  # where no network is")


def _is_cached(name: str) -> bool:
    """Whether the hub's cache on this machine holds timm's weights of a model."""
    from huggingface_hub import try_to_load_from_cache

    hub = getattr(timm.get_pretrained_cfg(name, allow_unregistered=True), "hf_hub_id", None)
    files = ("model.safetensors", "pytorch_model.bin")
    return bool(hub) and any(isinstance(try_to_load_from_cache(str(hub), file), str) for file in files)


def _data(config: Config) -> Iterator[Check]:
    root = config.data.root
    if root is None:
        return
    said: list[str] = []
    try:
        splits = list_splits(root, config.data, note=telling(said.append))
        sets = [open_data(root, split=one, reading=config.data, note=telling(said.append)) for one in splits]
    except WsssError as error:
        yield Check(name="data", status="bad", found=error.problem, mend=error.fix)
        return
    counts = ", ".join(f"{one.split} {len(one)}" for one in sets)
    classes = len(sets[0].classes) if sets else 0
    mend = f"wsss data check {root}" if said else ""
    remarks = f"; {len(said)} remarks" if said else ""
    yield Check(
        name="data", status="note" if said else "ok", found=f"{root}: {classes} classes, {counts}{remarks}", mend=mend
    )


def _locale() -> Iterator[Check]:
    encoding = sys.getfilesystemencoding()
    status: Status = "ok" if encoding == "utf-8" else "bad"
    yield Check(
        name="names of files", status=status, found=encoding, mend="" if status == "ok" else "export PYTHONUTF8=1"
    )
