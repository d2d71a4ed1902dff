"""`wsss report`: runs and folders of label maps on one page: figures with what they are, curves, and a gallery."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from wsss import __version__
from wsss.files import write_whole
from wsss.outputs.palettes import PaletteName
from wsss.report.agreement import SAMPLE, Agreement, agreements
from wsss.report.charts import line_chart
from wsss.report.curves import Series
from wsss.report.gallery import Gallery
from wsss.report.layers import Layer
from wsss.report.sources import Places, Scoring, Source, read_run
from wsss.reporting import Reporter

SCORED = Scoring()


def write_page(
    paths: Sequence[Path],
    out: Path,
    reporter: Reporter,
    *,
    scoring: Scoring = SCORED,
    limit: int | None = None,
    palette: PaletteName = "voc",
) -> dict[str, Any]:
    """Write the page of some runs and folders of ``make-pseudo`` or ``predict``.

    Args:
        paths: of them, in the order of the page.
        out: the HTML file.
        reporter: progress and remarks.
        scoring: where the masks lie, and whether they are opened.
        limit: images of the gallery at most; 0 leaves it out, None shows as many as there is room for.
        palette: colours of the classes.

    Returns:
        "output", "bytes", "scored", the number of label maps that were, and "images", those of the gallery.

    Raises:
        DataError: a path is neither, or a file of it cannot be read.
        DiskError: the page cannot be written.
    """
    places = Places.of(paths)
    layers = {root: layer for root in places.labels if (layer := Layer.read(root)) is not None}
    gallery = Gallery(list(layers.values()), limit)
    sources = [read_run(run, reporter) for run in places.runs]
    sources += [_labels(root, places, gallery, scoring, reporter) for root in places.labels]
    shown = gallery.content(reporter, palette) if limit != 0 and gallery.items else None
    agreed = list(agreements(gallery, reporter))
    text = _rendered(sources, shown, agreed)
    write_whole(out, text)
    scored = sum(one.report.images for one in sources if one.report is not None)
    images = 0 if shown is None else len(shown["images"])
    return {"output": str(out), "bytes": len(text.encode("utf-8")), "scored": scored, "images": images}


def _labels(root: Path, places: Places, gallery: Gallery, scoring: Scoring, reporter: Reporter) -> Source:
    """Read and score a folder of label maps; the gallery gets its images where it is one of its layers."""
    number = next((k for k, layer in enumerate(gallery.layers) if layer.root == root), None)
    return scoring.read(
        root,
        reporter,
        strict=root in places.given,
        on_records=(lambda records: None) if number is None else partial(gallery.tell, number),
        on_image=(lambda image: None) if number is None else partial(gallery.add, number),
    )


def _rendered(sources: Sequence[Source], gallery: dict[str, Any] | None, agreed: Sequence[Agreement]) -> str:
    """The page. Its script is named by its hash, so that a browser runs no other."""
    loader = PackageLoader("wsss.report")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    script = loader.get_source(environment, "gallery.js")[0] if gallery else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        version=__version__,
        sources=sources,
        charts=[(one, _charts(one)) for one in sources if one.curves],
        together=_together(sources),
        shared_classes=_shared_classes(sources),
        gallery=gallery,
        agreed=agreed,
        most_agreed=SAMPLE,
        script=Markup(script),
        digest=digest,
    )


def _charts(source: Source) -> list[Markup]:
    charts = []
    for one in source.curves:
        of = f"{source.name}{f', {one.name}' if one.name else ''}"
        if one.losses:
            charts.append(line_chart(f"losses of {of}, by step", one.losses))
        if one.validations:
            charts.append(line_chart(f"validation of {of} on {one.split}, by step", one.validations, percent=True))
    return charts


def _together(sources: Sequence[Source]) -> list[Markup]:
    """Where there are several runs, a chart of each figure of their validations, with a curve a run."""
    runs = [(one.name, curve) for one in sources for curve in one.curves if not curve.name]
    found: dict[str, list[Series]] = defaultdict(list)
    for name, curves in runs:
        for series in curves.validations:
            found[series.name].append(Series(f"{name} ({curves.split})", series.points))
    return [
        line_chart(f"{name} of the runs, by step", series, percent=True)
        for name, series in found.items()
        if len(series) > 1
    ]


def _shared_classes(sources: Sequence[Source]) -> list[str]:
    """The classes of the folders that were scored, where there are several and all have the same."""
    classes = [list(one.report.per_class_iou) for one in sources if one.report is not None]
    return classes[0] if len(classes) > 1 and all(one == classes[0] for one in classes) else []
