"""Read files of tensors that others made: ``torch.save`` archives and safetensors.

``torch.load(weights_only=True)`` runs no code of a file. Two dangers are left: a file can ask for memory that it does
not fill (``bytearray(2**31)`` in its pickle, a compressed part), and it can be read before its shapes are compared with
those of the network. Therefore

- ``check_archive`` refuses an archive whose directory or pickle asks for more than a plain checkpoint needs;
- the tensors are first mapped from the file (``mmap``), which gives their shapes and takes no memory; the caller
  compares these before the numbers are read.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

MAX_PICKLE = 2**22
"""Largest pickle in bytes, the part of the archive without numbers; a checkpoint of ours has less than a tenth."""
TYPES = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
"""Torch's old names of the types of numbers."""
GLOBALS = frozenset(
    (
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(f"torch {name}Storage" for name in TYPES),
    )
)
"""Module and name of all that the pickle of plain tensors refers to. ``torch.load`` allows more, ``bytearray`` among
them, which takes any memory that a file asks for."""


def read_archive(path: Path, check: Callable[[Any], None]) -> Any:
    """Read a file of ``torch.save``.

    Args:
        path: the file.
        check: called with the content before the numbers are read, its tensors mapped from the file; raises where it
            does not want them.

    Returns:
        what was saved, its tensors on the CPU.

    Raises:
        Exception: of any kind: the file is no such archive, is broken, asks for more than it holds, or what ``check``
            raises.
    """
    check(map_archive(path))
    with utf8_path(path) as named:
        return torch.load(named, map_location="cpu", weights_only=True)


def map_archive(path: Path) -> Any:
    """The content of a file of ``torch.save``; its tensors stay in the file until their numbers are used.

    Raises:
        Exception: of any kind: see ``read_archive``.
    """
    sizes = check_archive(path)
    claimed: list[tuple[int, int]] = []

    def note(storage: Any, location: str) -> Any:
        claimed.append((storage.data_ptr(), storage.nbytes()))
        return storage

    try:
        with utf8_path(path) as named:
            mapped = torch.load(named, map_location=note, mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:  # torch's message advises to switch weights_only off
        raise ValueError("it asks for more than plain values and tensors") from error
    # Older versions of torch.load trust the size that a storage claims, and read beyond a record that is shorter.
    if [size for _, size in sorted(claimed) if size] != sizes:
        raise ValueError("a storage is not of the size it claims")
    return mapped


def check_archive(path: Path) -> list[int]:
    """Check the directory and the pickle of an archive of ``torch.save``; no tensor is read.

    Returns:
        sizes in bytes of the stored arrays that are not empty, in the order in which they lie in the file.

    Raises:
        Exception: of any kind: see ``read_archive``.
    """
    with zipfile.ZipFile(path) as file:
        entries = file.infolist()
        names = [entry.filename for entry in entries]
        if len({name.lower() for name in names}) < len(names):
            raise ValueError("two parts of the archive share a name")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("the archive is compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("the archive claims to hold more than the file")
        top = names[0].split("/")[0]
        if f"{top}/byteorder" in names:
            with file.open(f"{top}/byteorder") as part:
                if part.read(8) != sys.byteorder.encode():  # torch would read and swap all of the numbers
                    raise ValueError(f"its numbers are not {sys.byteorder}-endian")
        if file.getinfo(f"{top}/data.pkl").file_size > MAX_PICKLE:
            raise ValueError(f"more than {MAX_PICKLE} bytes that are no tensors")
        content = file.read(f"{top}/data.pkl")
    for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
        if opcode.name == "GLOBAL" and argument not in GLOBALS:
            raise ValueError(f"it asks for {str(argument).replace(' ', '.')}, which no plain checkpoint does")
    arrays = [entry for entry in entries if entry.filename.startswith(f"{top}/data/") and entry.file_size]
    return [entry.file_size for entry in sorted(arrays, key=lambda entry: (entry.header_offset, entry.file_size))]


def read_safetensors(path: Path, check: Callable[[Any], None]) -> dict[str, Tensor]:
    """The tensors of a .safetensors file by name, mapped from the file: to be copied before it changes.

    Args:
        path: the file.
        check: called with the tensors; raises where it does not want them.

    Raises:
        Exception: of any kind: the header does not fit the file, or what ``check`` raises.
    """
    with utf8_path(path) as named, safe_open(named, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    check(tensors)
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file; empty where it has none.

    Raises:
        Exception: of any kind: the header is damaged.
    """
    with utf8_path(path) as named, safe_open(named, framework="pt") as file:
        return dict(file.metadata() or {})


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """A path of the same file for libraries that encode names as UTF-8; that of a descriptor where the name is not."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield Path(f"/proc/self/fd/{file.fileno()}")
    else:
        yield path


def strange(path: Path) -> tuple[str, str] | None:
    """What a file is that should hold tensors, and what mends it; None where its first bytes do not tell."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return None
    if not start:
        return "it is empty", "copy it again"
    if start.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer in place of the file", "git lfs pull"
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page in place of the file", "download the file itself"
    if start.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        return f"{path.stat().st_size} bytes, not whole: it was cut off", "copy it again"
    if start.startswith(b"PK\x05\x06"):
        return "an empty archive", "copy it again"
    return None


def first_line(error: Exception) -> str:
    """The first line of an error's message, at most 300 characters; its type where it has no message."""
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """Every tensor in nested dicts, lists and tuples. A container that is referred to twice is searched once."""
    stack, seen = [tree], set()
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            stack += value.values() if isinstance(value, dict) else value
