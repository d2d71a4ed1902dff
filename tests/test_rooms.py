"""The architecture: imports point down the list of rooms, and some libraries stay in the rooms that own them."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

ROOT = Path(__file__).parents[1]

FLOORS: tuple[tuple[str, ...], ...] = (
    ("cores", "errors", "section", "waiting"),
    ("reading",),
    ("explain", "files", "launcher", "sections", "plain_yaml", "reporting", "stopping"),
    ("cluster", "config", "pool", "processes", "shard"),
    ("machine",),
    ("data",),
    ("attention",),
    ("models",),
    ("maps",),
    ("evaluation", "labels"),
    ("outputs",),
    ("inference",),
    ("analysis", "robustness", "training"),
    ("budget", "report", "serve"),
    ("demo", "doctor", "pipeline"),
    ("cli", "configs"),
)
"""Rooms of `wsss`, from the bottom to the top: modules import from their own room and from lower floors."""

OWN = {
    "rich": ("cli",),
    "typer": ("cli",),
    "jinja2": ("report",),
    "yaml": ("config", "plain_yaml"),
    "pydensecrf": ("labels",),
    "rasterio": ("data",),
    "cvat_sdk": ("serve",),
    "onnx": ("inference",),
    "onnxruntime": ("inference", "models"),
}
"""Libraries that only these rooms import."""

HEAVY = ("torch", "torchvision", "timm", "cv2")
"""Libraries that `wsss --help` must not import."""

LIGHT = (
    "cli",
    "cluster",
    "config",
    "configs",
    "errors",
    "explain",
    "files",
    "launcher",
    "reading",
    "section",
    "sections",
    "plain_yaml",
    "reporting",
    "shard",
    "stopping",
    "waiting",
)
"""Rooms whose modules import no heavy library at their top."""

NO_FILES = ("attention", "maps", "evaluation", "labels")
"""Rooms of rules: functions of tensors and arrays that open no file and import no room that does."""

FILE_CALLS = {
    *("cv2.imread", "cv2.imwrite", "Image.open", "torch.load", "torch.save"),
    *("np.load", "np.save", "np.savez", "np.savez_compressed"),
}
FILE_METHODS = {"read_text", "write_text", "read_bytes", "write_bytes", "savez", "mkdir", "unlink"}

KNOWN: frozenset[str] = frozenset()
"""Violations that are accepted for now, in the words of the tests, such as "wsss.a.b imports c"."""


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module of the package, as it is installed."""
    for folder, package in (("wsss", "wsss"), ("cli", "wsss.cli"), ("configs", "wsss.configs")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join((package, *(part for part in inside if part != "__init__"))), path


def room(name: str) -> str:
    """The room of a module: the second part of its name; "" for the package itself."""
    return [*name.split("."), ""][1]


def imports(path: Path, name: str, *, top: bool = False) -> Iterator[str]:
    """Dotted names that a file imports; with ``top``, only while it is imported itself."""
    stack: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while stack:
        node = stack.pop()
        if top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if top and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        stack += ast.iter_child_nodes(node)


def new(violations: Iterator[str]) -> list[str]:
    return sorted(set(violations) - KNOWN)


FLOOR = {name: floor for floor, names in zip(count(), FLOORS) for name in names}


def test_every_module_has_a_room() -> None:
    rooms = {room(name) for name, _ in modules()} - {"", "__main__"}
    assert rooms - FLOOR.keys() == set()


def test_imports_point_down() -> None:
    def upward() -> Iterator[str]:
        for name, path in modules():
            here = room(name)
            if here in ("", "__main__"):  # the package itself may import from all rooms
                continue
            for imported in imports(path, name):
                there = room(imported) if imported.startswith("wsss.") else ""
                if there != here and FLOOR.get(there, -1) >= FLOOR[here]:
                    yield f"{name} imports {there}"

    assert new(upward()) == []


def test_libraries_stay_in_their_rooms() -> None:
    def strays() -> Iterator[str]:
        for name, path in modules():
            for imported in imports(path, name):
                library = imported.split(".")[0]
                if library in OWN and room(name) not in OWN[library]:
                    yield f"{name} imports {library}"

    assert new(strays()) == []


def test_light_rooms_import_heavy_libraries_late() -> None:
    """They import none themselves and none through a module of another room."""
    paths = dict(modules())

    def heavy(name: str, seen: set[str]) -> str | None:
        for imported in imports(paths[name], name, top=True):
            if imported.split(".")[0] in HEAVY:
                return imported.split(".")[0]
            module = imported if imported in paths else imported.rpartition(".")[0]
            if module in paths and module not in seen:
                seen.add(module)
                found = heavy(module, seen)
                if found:
                    return found
        return None

    def strays() -> Iterator[str]:
        for name in paths:
            library = heavy(name, {name}) if room(name) in LIGHT else None
            if library:
                yield f"{name} imports {library} at its top"

    assert new(strays()) == []


def test_rules_open_no_file() -> None:
    def strays() -> Iterator[str]:
        for name, path in modules():
            if room(name) not in NO_FILES:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    if called == "open" or called in FILE_CALLS or called.rpartition(".")[2] in FILE_METHODS:
                        yield f"{name} calls {called}"
            for imported in imports(path, name):
                if imported.split(".")[:2] in (["wsss", "files"], ["wsss", "outputs"]):
                    yield f"{name} imports {imported}"

    assert new(strays()) == []


def test_masks_are_read_with_pillow() -> None:
    """OpenCV reads the colours of a palette PNG instead of its class indices; images are decoded in one place."""

    def strays() -> Iterator[str]:
        for name, path in modules():
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and ast.unparse(node) in ("cv2.imread", "cv2.imwrite"):
                    yield f"{name} uses {ast.unparse(node)}"

    assert new(strays()) == []


def test_the_wheel_holds_every_room() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    inside = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "wsss").rglob("*.py")
    }  # fmt: skip
    assert set(setuptools["packages"]) == inside | {"wsss.cli", "wsss.configs"}
