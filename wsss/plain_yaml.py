"""YAML from untrusted sources: plain values only, no code is run, and size and aliases are limited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from wsss.errors import UsageError

MAX_BYTES = 2**18
"""Largest file that is read; the longest config has about a hundredth of it."""


def read_yaml(path: str | Path) -> Any:
    """Parse a YAML file.

    Raises:
        UsageError: it is larger than MAX_BYTES, not UTF-8 text or not YAML.
    """
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise UsageError(f"{path}: more than {MAX_BYTES} bytes, which is no config", "wsss config show")
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as text ({error})", "wsss config show") from error
    return load_yaml(text, str(path))


def load_yaml(text: str, where: str) -> Any:
    """Parse a YAML text; ``where`` names its source in error messages.

    Raises:
        UsageError: it is not YAML.
    """
    try:
        return yaml.load(text, PlainLoader)  # a SafeLoader
    except RecursionError as error:
        raise UsageError(f"{where}: not valid YAML (nested too deeply)", "wsss config show") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date or number
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"{where}: not valid YAML ({reason})", "wsss config show") from error


class PlainLoader(yaml.SafeLoader):
    """Loads plain values. An alias may refer to one scalar only: aliases of collections can expand without bound."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Called for each node, before it is built."""
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_alias and not isinstance(node, yaml.ScalarNode):
            raise yaml.YAMLError("an alias of more than one value")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Called for each mapping; a key that is there twice is an error, since one of its values would be lost."""
        first: dict[Any, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if first.setdefault(key.value, line) != line:
                    raise yaml.YAMLError(f"'{key.value}' stands twice, in lines {first[key.value]} and {line}")
        return super().construct_mapping(node, deep)


def dump_yaml(content: Any) -> str:
    """Plain values as YAML, in their order; ``load_yaml`` reads them back."""
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text
