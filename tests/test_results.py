"""The pages of figures and the presets: every script, page and preset that they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRESETS = sorted((ROOT / "configs").glob("*.yaml"))
PAGES = [ROOT / "benchmarks" / "RESULTS.md", ROOT / "LOG.md", *sorted((ROOT / "benchmarks" / "results").glob("*.md"))]


@pytest.mark.parametrize("page", [*PAGES, *PRESETS], ids=lambda page: page.stem)
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for script in re.findall(r"benchmarks/[\w/]+\.(?:py|sh|md)", text):
        assert (ROOT / script).is_file(), script
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for preset in re.findall(r"configs/[\w-]+\.yaml", text):
        assert (ROOT / preset).is_file(), preset


def test_the_first_page_leads_to_every_other() -> None:
    text = PAGES[0].read_text()
    for page in PAGES[2:]:
        assert f"(results/{page.name})" in text, page.name
