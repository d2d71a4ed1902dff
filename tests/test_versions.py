"""The version is written in pyproject.toml; what repeats it must agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_place_names_one_version() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    citation = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    package = re.findall(r'^__version__ = "(.+)"$', (ROOT / "wsss" / "__init__.py").read_text(), re.MULTILINE)
    assert package == [version]
    assert citation == [version]
    assert released[0] == version, "the first release of the changelog"
