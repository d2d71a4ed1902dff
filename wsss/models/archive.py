"""Files of tensors from strangers, looked at before anything is loaded.

``torch.load(weights_only=True)`` runs no code of a file, but takes the memory it asks for. Here a file of
``torch.save`` is read first as claims: names, types and shapes, which are checked against what the file holds. The
claims can be compared with a network before a tensor is read.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

MAX_PICKLE = 2**22
"""Bytes of the part without tensors; a checkpoint of ours has less than a tenth."""
OPCODES = frozenset(
    (
        "PROTO",
        "STOP",
        "GLOBAL",
        "REDUCE",
        "BUILD",
        "BINPERSID",
        "MARK",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "BINFLOAT",
        "BINUNICODE",
        "EMPTY_DICT",
        "SETITEM",
        "SETITEMS",
        "EMPTY_LIST",
        "APPEND",
        "APPENDS",
        "EMPTY_TUPLE",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "BINPUT",
        "LONG_BINPUT",
        "BINGET",
        "LONG_BINGET",
    )
)
"""What torch.save writes for plain values and tensors; others could ask for memory that the file does not fill."""
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Claim(NamedTuple):
    """A tensor that a file says it holds."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Memory it will take."""
        return math.prod(self.shape) * self.dtype.itemsize


class Storage(NamedTuple):
    """Numbers in a file that tensors are views of."""

    dtype: torch.dtype
    length: int


class Ordered(dict[Any, Any]):
    """Stands for an OrderedDict of torch, which may carry versions as an attribute."""

    def __init__(self, *arguments: object) -> None:
        if arguments:
            raise ValueError("an OrderedDict made of something")
        super().__init__()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        if {*state} - {"_metadata"}:
            raise ValueError("an OrderedDict with attributes")


class ClaimReader(pickle._Unpickler):
    """Reads the pickle of torch.save as claims. Nothing that it can build or call does anything.

    Args:
        content: the pickle; of ``OPCODES`` alone.
        sizes: bytes of each stored record, by its key.
    """

    def __init__(self, content: bytes, sizes: Mapping[str, int]) -> None:
        super().__init__(io.BytesIO(content))
        self.sizes = sizes

    def find_class(self, module: str, name: str, /) -> Any:
        """One of the few names that plain checkpoints use."""
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        known = {
            "collections.OrderedDict": Ordered,
            "torch._utils._rebuild_tensor_v2": view,
            "torch._utils._rebuild_parameter": parameter,
        }
        if f"{module}.{name}" not in known:
            raise ValueError(f"it asks for {module}.{name}, which no plain checkpoint does")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Storage:
        """A storage, if the file has as many bytes for it as it claims."""
        kind, dtype, key, _, length = pid
        if kind != "storage" or length * dtype.itemsize != self.sizes.get(key):
            raise ValueError(f"storage {key} is not of the size it claims")
        return Storage(dtype, length)


def view(storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Claim:
    """The claim of a tensor that lies within its storage."""
    if min((offset, *size, *stride)) < 0 or len(size) != len(stride):
        raise ValueError(f"a tensor of shape {size} and strides {stride}")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.length:
        raise ValueError(f"a tensor of shape {size} in {storage.length} numbers")
    return Claim(storage.dtype, tuple(map(int, size)))


def parameter(claim: Claim, *_: object) -> Claim:
    """A parameter is its tensor."""
    return claim


def read_archive(path: Path, check: Callable[[Any], None]) -> Any:
    """The content of a file of torch.save, its tensors on the CPU.

    Args:
        path: the file.
        check: called with the content, a ``Claim`` in place of each tensor, before tensors are read; raises where
            they are not wanted.

    Raises:
        Exception: of any kind: it is no such file, or does not hold what it claims, or what ``check`` raises.
    """
    with zipfile.ZipFile(path) as file:
        claims = _claims(file, path.stat().st_size)
    check(claims)
    return torch.load(path, map_location="cpu", weights_only=True)


def read_safetensors(path: Path, check: Callable[[Any], None]) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, in the same way; its reader checks the header against the file.

    The claims are all of float32, as most such files are.
    """
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        check({name: Claim(torch.float32, tuple(file.get_slice(name).get_shape())) for name in names})
        return {name: file.get_tensor(name) for name in names}


def first_line(error: Exception) -> str:
    """What an error says, briefly."""
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


def claims_in(tree: Any) -> Iterator[Claim | Tensor]:
    """Every tensor, or claim of one, in nested containers; one that stands there twice is given once."""
    stack, seen = [tree], set()
    while stack:
        value = stack.pop()
        if isinstance(value, Claim | Tensor):
            yield value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            stack += value.values() if isinstance(value, dict) else value


def _claims(file: zipfile.ZipFile, size: int) -> Any:
    entries = file.infolist()
    names = [entry.filename for entry in entries]
    if len({name.lower() for name in names}) < len(names):
        raise ValueError("two parts of the archive share a name")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("the archive is compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("the archive claims to hold more than the file")
    top = names[0].split("/")[0]
    sizes = {entry.filename.removeprefix(f"{top}/data/"): entry.file_size for entry in entries}
    if file.getinfo(f"{top}/data.pkl").file_size > MAX_PICKLE:
        raise ValueError(f"more than {MAX_PICKLE} bytes that are no tensors")
    content = file.read(f"{top}/data.pkl")
    odd = next((op.name for op, _, _ in pickletools.genops(content) if op.name not in OPCODES), None)
    if odd is not None:
        raise ValueError(f"it uses {odd}, which torch.save never does")
    return ClaimReader(content, sizes).load()
