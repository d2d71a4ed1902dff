"""Folders of label maps as make-pseudo and predict leave them, and a browser that listens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wsss.data.dataset import open_data
from wsss.data.masks import count_indices, read_mask, write_mask
from wsss.outputs.journal import Entry, Journal

CHROMIUM = shutil.which("chromium")


def striped(label_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every fourth column becomes background."""
    label_HW[:, ::4] = 0
    return label_HW


@pytest.fixture
def label_folder(scenes: Path) -> Callable[..., Path]:
    """``label_folder(out, change, **manifest)``: the true label maps of the validation split, changed."""

    def make(out: Path, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = striped, **manifest: Any) -> Path:
        tagged = open_data(scenes, split="val")
        out.mkdir(parents=True)
        facts = {"wsss": "test", "kind": "pseudo", "classes": list(tagged.classes), "split": "val"}
        facts |= {"supervision": ["tags"], "scales": [48], "flip": False, "crf": False}
        (out / "manifest.json").write_text(json.dumps(facts | {"choices": {"data": str(scenes)}} | manifest))
        with Journal(out / "journal.jsonl") as journal:
            for record in tagged.records:
                path = tagged.mask_path(record)
                assert path is not None
                label_HW = change(read_mask(path))
                write_mask(out / "labels" / f"{record.name}.png", label_HW)
                journal.add(
                    Entry(
                        name=record.name,
                        origin=str(record.image),
                        source=record.digest or "",
                        tags=record.tags,
                        settings="",
                        pixels=count_indices(label_HW),
                        files={},
                    )
                )
        return out

    return make


@pytest.fixture
def browser() -> Iterator[Callable[..., Any]]:
    """``browser(file, **options)`` opens a file; at the end the page has said nothing and asked for nothing else."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    said: list[str] = []
    asked: list[str] = []
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)

        def opened(file: Path, **options: Any) -> Any:
            page = chromium.new_page(**options)
            page.set_default_timeout(10_000)
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            page.goto(file.as_uri())
            return page

        yield opened
        chromium.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
