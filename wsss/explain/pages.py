"""The pages: one for each kind of finding and error.

They are the sections of the Markdown files beside this module: under the kind as a heading what it is, then why it
matters, an example and what mends it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from wsss.errors import UsageError

FILES = ("tables", "tags", "images", "masks", "errors")
"""In the order of the list."""
PARTS = ("Why", "Example", "Mend")
"""Items that follow the first paragraph of a page."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        kind: of a finding or an error.
        group: heading of its file.
        text: Markdown without a heading.
    """

    kind: str
    group: str
    text: str

    @property
    def what(self) -> str:
        """The first paragraph in one line."""
        return " ".join(self.text.split("\n\n")[0].split())


@cache
def pages() -> dict[str, Page]:
    """All pages by their kind."""
    found: dict[str, Page] = {}
    for name in FILES:
        text = resources.files("wsss.explain").joinpath(f"{name}.md").read_text(encoding="utf-8")
        head, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
        group = head.partition("\n")[0].removeprefix("# ")
        for section in sections:
            kind, _, body = section.partition("\n")
            found[kind] = Page(kind, group, body.strip())
    return found


def page_of(kind: str) -> Page:
    """The page of a kind.

    Raises:
        UsageError: there is none; the message has the nearest kinds.
    """
    if kind in pages():
        return pages()[kind]
    near = difflib.get_close_matches(kind, pages(), n=3, cutoff=0.5)
    raise UsageError(
        f"no page '{kind}'" + (f" (did you mean {' or '.join(near)}?)" if near else ""),
        f"wsss explain {near[0]}" if near else "wsss explain  # lists all",
    )
