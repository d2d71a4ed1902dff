"""The page of `wsss report` on thousands of images, and how fast a browser uses it: benchmarks/results/report.md.

    python benchmarks/report.py OUT --data DIR --split train_aug --images 3000

Two folders of label maps are made from the true masks: "eroded", whose objects lose a border that is ignored, and
"moved", a prediction that is some pixels beside the truth. Both are scored, so that the page holds the most it can of
each image: photo, two label maps, truth. Chromium (`apt-get install chromium`) opens it through Playwright; times are
those until the next frame is drawn.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from playwright.sync_api import Page, sync_playwright

from wsss.data.dataset import open_data
from wsss.data.masks import IGNORE_INDEX, count_indices, write_mask
from wsss.data.records import Record, TaggedSet
from wsss.data.threads import in_threads
from wsss.data.truth import read_truth
from wsss.outputs.journal import Entry, Journal
from wsss.report.page import write_page
from wsss.reporting import Silent

BORDER, SHIFT = 9, 12
"""Pixels of the border that is ignored, and of the shift."""
TIMED = """async () => {
  const began = performance.now();
  ACT
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - began;
}"""
CHOOSE = (
    "{{ const one = document.getElementById('{}'); one.value = '{}';"
    " one.dispatchEvent(new Event('input', {{bubbles: true}})); }}"
)
ACTS = {
    "filter by class": CHOOSE.format("class", 1),
    "filter by kind of error": CHOOSE.format("kind", 3),
    "all images, most doubtful first": CHOOSE.format("kind", "") + CHOOSE.format("order", "doubt"),
    "strength of the colours": CHOOSE.format("strength", 30),
    "open an image": "document.querySelector('#tiles button').click();",
}
"""What is timed in the page: JavaScript."""


def eroded(label_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Objects lose a border, which is ignored."""
    square = np.ones((BORDER, BORDER), np.uint8)
    inner_HW = cv2.erode(label_HW, square)
    return np.where((label_HW > 0) & (inner_HW != label_HW), IGNORE_INDEX, label_HW).astype(np.uint8)


def moved(label_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The label map some pixels to the right; ignored pixels become background."""
    return np.roll(np.where(label_HW == IGNORE_INDEX, 0, label_HW), SHIFT, axis=1).astype(np.uint8)


def write_folder(
    out: Path, tagged: TaggedSet, kind: str, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
) -> Path:
    """A folder of label maps as make-pseudo writes it, from the true masks."""
    out.mkdir(parents=True)
    facts: dict[str, Any] = {"wsss": "benchmark", "kind": kind, "classes": list(tagged.classes), "split": tagged.split}
    facts |= {"supervision": ["true masks"], "choices": {"data": str(tagged.root.absolute())}}
    (out / "manifest.json").write_text(json.dumps(facts))

    def make(record: Record) -> Entry:
        label_HW = change(read_truth(tagged, record))
        write_mask(out / "labels" / f"{record.name}.png", label_HW)
        pixels = count_indices(label_HW)
        content = {"source": record.digest or "", "tags": record.tags, "settings": "", "pixels": pixels}
        return Entry(name=record.name, origin=str(record.image), files={}, **content)  # type: ignore[arg-type]

    with Journal(out / "journal.jsonl") as journal:
        for entry in in_threads(make, tagged.records):
            journal.add(entry)
    return out


def timed_in(page: Page, file: Path) -> dict[str, float]:
    """Milliseconds of each act, and of loading the page until its first label map is drawn."""
    began = time.perf_counter()
    page.goto(file.as_uri())
    page.evaluate("document.getElementById('tools').scrollIntoView()")
    page.wait_for_function("document.querySelector('#tiles canvas')?.width !== 300")
    found = {"load": 1000 * (time.perf_counter() - began)}
    found |= {name: float(page.evaluate(TIMED.replace("ACT", act))) for name, act in ACTS.items()}
    page.keyboard.press("Escape")
    began = time.perf_counter()
    page.keyboard.press("End")
    page.wait_for_function("document.activeElement.closest('li') === document.querySelector('#tiles').lastChild")
    found["go to the last image"] = 1000 * (time.perf_counter() - began)
    found["heap, MB"] = float(page.evaluate("performance.memory.usedJSHeapSize")) / 1e6
    return found


def main(
    out: Path,
    data: Annotated[Path, typer.Option()],
    split: str = "train_aug",
    images: int = 3000,
    rounds: int = 3,
) -> None:
    """Print a table: pages of one and of two folders."""
    tagged = open_data(data, split=split)
    some = replace(tagged, records=tagged.records[:images])
    folders = [
        write_folder(out / "eroded", some, "pseudo", eroded),
        write_folder(out / "moved", some, "segmentation", moved),
    ]
    print("| | " + " | ".join(f"{count} folder{'s' * (count > 1)}" for count in (1, 2)) + " |\n|---|---|---|")
    columns: list[dict[str, Any]] = []
    for count in (1, 2):
        began = time.perf_counter()
        written = write_page(folders[:count], out / f"{count}.html", Silent())
        seconds = time.perf_counter() - began
        columns.append({"images": written["images"], "MB": written["bytes"] / 1e6, "written, s": seconds})
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
            turns = [timed_in(browser.new_page(), out / f"{count}.html") for _ in range(rounds)]
            browser.close()
        columns[-1] |= {name: float(np.median([turn[name] for turn in turns])) for name in turns[0]}
    for name in columns[0]:
        unit = "" if name in ("images", "MB", "written, s", "heap, MB") else ", ms"
        print(f"| {name}{unit} | " + " | ".join(f"{column[name]:.4g}" for column in columns) + " |")


if __name__ == "__main__":
    typer.run(main)
