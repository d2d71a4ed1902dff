"""What a run was asked for, kept in ``run.json``: the same command again continues it (``--resume-or-start``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss.config import Config, plain_settings
from wsss.errors import DataError, UsageError
from wsss.outputs.run import FACTS, read_facts
from wsss.reporting import first_few

MAY_DIFFER = ("data.root", "run.workers", "run.device", "run.verify_steps")
"""Keys that another value of does not make another run: its data may have moved, and it may compute elsewhere."""


def asked_for(config: Config, **inputs: Path | None) -> dict[str, Any]:
    """What is asked of a training: config keys that are not at their defaults, and folders by the name of their option.

    Args:
        config: the settings, before the data or another run decide anything in them.
        inputs: run or folder that it begins from, or None.
    """
    usual = plain_settings(Config())
    settings = plain_settings(config.anchored(), but=MAY_DIFFER)
    folders = {name: str(path.absolute()) for name, path in inputs.items() if path is not None}
    return {key: value for key, value in settings.items() if value != usual[key]} | folders


def goes_on(run: Path, asked: Mapping[str, Any]) -> bool:
    """Whether a folder holds a run to continue; else it is to be begun.

    Args:
        run: the folder.
        asked: of the training (`asked_for`).

    Raises:
        UsageError: it was begun with other settings.
        DataError: it does not say which.
    """
    if not (run / "last.pt").is_file():
        return False
    was = read_facts(run).get("asked") if (run / FACTS).is_file() else None
    if not isinstance(was, dict):
        raise DataError(f"{run} does not say what it was asked for: an earlier version began it", f"--resume {run}")
    usual = plain_settings(Config())
    differing = [
        f"{key} was {was.get(key, usual.get(key))}, now it is {asked.get(key, usual.get(key))}"
        for key in sorted({*was, *asked})
        if was.get(key, usual.get(key)) != asked.get(key, usual.get(key))
    ]
    if differing:
        raise UsageError(
            f"{run} was begun with other settings: {first_few(differing)}",
            f"--resume {run}  # continues it with its own; or choose another -o",
        )
    return True
