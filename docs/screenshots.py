"""Pictures of the documentation: the report in a browser, a sheet of `wsss show`, the palettes.

    python docs/screenshots.py DEMO -o docs/pictures

DEMO is a folder of `wsss demo`; where it is missing, the demo is run first. Needs Chromium and Playwright
(``apt-get install chromium``, ``pip install playwright``). The images are painted scenes; nothing is loaded from
elsewhere.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

from wsss.data.dataset import open_data
from wsss.data.masks import read_mask
from wsss.outputs.pictures import contact_sheet, key, overlay, write_jpeg

SIZE = {"width": 1180, "height": 760}
"""Of the browser's window, pixels."""
VIEWS = (
    ("report-figures.jpg", "Figures", "light"),
    ("report-gallery.jpg", "Gallery", "light"),
    ("report-dark.jpg", "Gallery", "dark"),
)
"""File of a picture, the heading that it begins with, light or dark."""
WSSS = [sys.executable, "-m", "wsss"]


def keep(picture: bytes, path: Path) -> None:
    """Write a screenshot as JPEG, small enough for a page."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    write_jpeg(path, np.asarray(image), 82)


def photographed(report: Path, out: Path) -> None:
    """The report light and dark: figures, gallery, slider."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"))

        def opened(scheme: Any) -> Any:
            page = chromium.new_page(viewport=SIZE, color_scheme=scheme)
            page.goto(report.absolute().as_uri())
            return page

        for name, heading, scheme in VIEWS:
            page = opened(scheme)
            page.get_by_role("heading", name=heading, exact=True).evaluate("heading => heading.scrollIntoView()")
            page.wait_for_timeout(500)
            keep(page.screenshot(), out / name)
        page.locator("#tiles button").nth(1).click()
        page.get_by_role("dialog").get_by_label("From left to right").fill("50")
        page.wait_for_timeout(500)
        keep(page.screenshot(), out / "report-slider.jpg")
        chromium.close()


def palettes(demo: Path, out: Path) -> None:
    """One label map in the colours of each palette, with its key."""
    unseen = open_data(demo / "scenes", split="val")
    record = max(unseen.records, key=lambda record: len(record.tags))
    label_HW, image_HW3 = read_mask(demo / "masks" / "labels" / f"{record.name}.png"), record.decode()
    columns = []
    for name in ("voc", "colorblind"):
        sheet = contact_sheet([(f"--palette {name}", overlay(image_HW3, label_HW, palette=name))], 1, 330)
        columns.append(np.concatenate([sheet, key(label_HW, unseen.classes, sheet.shape[1], name)]))
    write_jpeg(out / "palettes.jpg", np.concatenate(columns, axis=1), 88)
    run = [*WSSS, "show", str(record.image), "--run", str(demo / "cls"), "--methods", "-o", str(out / "show.png")]
    tags = ",".join(unseen.classes[tag] for tag in record.tags[:2])
    subprocess.run([*run, "--tags", tags], check=True, stdout=subprocess.DEVNULL)
    keep((out / "show.png").read_bytes(), out / "show.jpg")
    (out / "show.png").unlink()


def main(
    demo: Path,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the pictures.")] = Path("docs/pictures"),
) -> None:
    """Write the pictures."""
    if not (demo / "demo.json").is_file():
        subprocess.run([*WSSS, "demo", "-o", str(demo)], check=True)
    output.mkdir(parents=True, exist_ok=True)
    report = demo.parent / f"{demo.name}-report.html"
    folders = [f"{demo.name}/{name}" for name in ("pseudo", "masks", "seg")]
    subprocess.run(
        [*WSSS, "report", *folders, "-o", report.name], check=True, cwd=demo.parent, stdout=subprocess.DEVNULL
    )
    photographed(report, output)
    palettes(demo, output)
    for path in sorted(output.iterdir()):
        print(f"{path}: {path.stat().st_size // 1024} kB")


if __name__ == "__main__":
    typer.run(main)
