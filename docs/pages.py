"""Pages of the documentation that come from the source (a hook of MkDocs, see mkdocs.yml).

The pages of the repository keep their places relative to each other, so their links work in both. What is linked and is
no page, such as a script, keeps its words and loses its link.
"""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BROUGHT = (
    "data/README.md",
    "data/formats/*.md",
    "benchmarks/RESULTS.md",
    "benchmarks/results/*.md",
    "LOG.md",
    "CHANGELOG.md",
    "wsss/explain/*.md",
)
"""Pages of the repository, relative to its root."""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
HELP = re.compile(r"^(#+ `wsss)", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in docs/."""
    pages = {"reference/commands.md": commands_page(), "reference/config.md": config_page()}
    for pattern in BROUGHT:
        pages |= {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(ROOT.glob(pattern))}
    for place, text in pages.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Links from docs/ into the repository lead to the pages brought from there; others become words."""
    place = page.file.src_uri
    own = (ROOT / "docs" / place).is_file()

    def mend(link: re.Match[str]) -> str:
        words, target, part = link[1], link[2], link[3] or ""
        if "://" in target:
            return link[0]
        there = posixpath.normpath(posixpath.join(posixpath.dirname(f"docs/{place}" if own else place), target))
        there = there.removeprefix("docs/")
        if files.get_file_from_path(there) is None:
            return words
        return f"[{words}]({posixpath.relpath(there, posixpath.dirname(place) or '.')}{part})"

    return LINK.sub(mend, markdown)


def commands_page() -> str:
    """The help of every command, as Typer writes it."""
    command = [sys.executable, "-m", "typer", "wsss.cli.main", "utils", "docs", "--name", "wsss"]
    text = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return HELP.sub(r"\1", text).replace("# `wsss`\n", "# Commands\n", 1)


def config_page() -> str:
    """Every config key: type, default and what it does, from `wsss.sections`."""
    from wsss.config import Config

    lines = [
        "# Config keys",
        "",
        "A YAML file (`-c FILE`) has these sections; `--set section.key=value` sets one key, and many keys have an"
        " option of their own. `wsss config show` prints all of them with their values.",
        "",
    ]
    for section, field in Config.model_fields.items():
        kind: Any = field.annotation
        lines += [f"## {section}", "", " ".join((kind.__doc__ or "").split()), ""]
        for key, leaf in kind.model_fields.items():
            default = leaf.get_default(call_default_factory=True)
            words = " ".join((leaf.description or "").split())
            lines += [f"`{section}.{key}` = `{default!r}`", f":   {words}", ""]
    return "\n".join(lines)
