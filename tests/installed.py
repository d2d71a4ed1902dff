"""Install the wheel of a folder in an environment of its own and use it from an empty folder (`make dist`).

    python tests/installed.py dist

The environment sees the libraries of the one that runs this, but not its wsss. Ends with an error where the wheel or
the source archive lacks a file of the repository, or where a command fails.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = {"wsss/": "wsss/", "cli/": "wsss/cli/", "configs/": "wsss/configs/"}
"""Folders of the repository and where the wheel has them."""
NOT_SHIPPED = (".github/", ".gitignore")
COMMANDS = (
    "wsss --version",
    "python -m wsss config list",
    "wsss config show -c getam-paper",
    "wsss doctor --json",
    "wsss demo -o demo --train 16 --val 4 --set classify.epochs=1 --set segment.epochs=1 --set segment.rounds=1",
    "wsss report demo/seg demo/masks -o report.html",
)


def tracked() -> list[str]:
    """The files of the repository."""
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    return found.stdout.splitlines()


def missing(dist: Path) -> list[str]:
    """Files of the repository that the wheel or the source archive lacks."""
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    with tarfile.open(source) as archive:
        sources = {name.partition("/")[2] for name in archive.getnames()}
    lacks = [f"{source.name}: {name}" for name in tracked() if name not in sources and not name.startswith(NOT_SHIPPED)]
    for name in tracked():
        for here, there in PLACES.items():
            if name.startswith(here) and there + name.removeprefix(here) not in packed:
                lacks.append(f"{wheel.name}: {name}")
    return lacks


def main() -> None:
    """Check the folder of the command line."""
    dist = Path(sys.argv[1]).resolve()
    if lacks := missing(dist):
        sys.exit("not in the packages:\n" + "\n".join(lacks))
    with tempfile.TemporaryDirectory() as folder:
        venv.create(Path(folder) / "venv", with_pip=True)
        programs = Path(folder) / "venv" / "bin"
        (packages,) = (Path(folder) / "venv" / "lib").glob("*/site-packages")
        libraries = [place for place in sys.path if place.endswith("site-packages")]
        (packages / "libraries.pth").write_text("\n".join(libraries) + "\n")
        install = [programs / "python", "-m", "pip", "install", "-q", "--no-deps", *dist.glob("*.whl")]
        subprocess.run(install, check=True)
        empty = Path(folder) / "empty"
        empty.mkdir()
        for command in COMMANDS:
            program, *words = command.split()
            print(f"$ {command}", flush=True)
            subprocess.run([programs / program, *words], check=True, cwd=empty, stdout=subprocess.DEVNULL)
        where = [programs / "python", "-c", "import wsss; print(wsss.__file__)"]
        place = subprocess.run(where, check=True, cwd=empty, capture_output=True, text=True).stdout
        assert place.startswith(folder), place


if __name__ == "__main__":
    main()
