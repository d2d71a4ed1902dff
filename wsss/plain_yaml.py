"""YAML of plain values from anyone: nothing in it runs, and neither its size nor its aliases fill the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from wsss.errors import UsageError

MAX_BYTES = 2**18
"""A larger file is no config; the longest there is has a hundredth."""


def read_yaml(path: str | Path) -> Any:
    """The content of a file of YAML.

    Raises:
        UsageError: too large, no text or no YAML.
    """
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: more than {MAX_BYTES} bytes, which is no config", "wsss config show")
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as text ({error})", "wsss config show") from error
    return load_yaml(text, str(path))


def load_yaml(text: str, where: str) -> Any:
    """The content of a text of YAML; ``where`` it comes from is what errors say.

    Raises:
        UsageError: no YAML.
    """
    try:
        return yaml.load(text, PlainLoader)  # a SafeLoader
    except RecursionError as error:
        raise UsageError(f"{where}: not valid YAML (nested too deeply)", "wsss config show") from error
    except (yaml.YAMLError, ValueError) as error:  # the latter: a date or number that there is not
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"{where}: not valid YAML ({reason})", "wsss config show") from error


class PlainLoader(yaml.SafeLoader):
    """YAML of plain values, in which an alias stands for one scalar: others can grow without bound."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Called for each node, before it is built."""
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_alias and not isinstance(node, yaml.ScalarNode):
            raise yaml.YAMLError("an alias of more than one value")
        return node
