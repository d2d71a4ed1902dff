"""Label Studio's ML backend: what each request is answered, without any HTTP.

Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from wsss.data.masks import count_indices
from wsss.data.writers.label_studio import Place, regions
from wsss.inference.segmenter import Segmenter
from wsss.serve.images import Images, Refused, short

CONTROLS = {"BrushLabels": False, "PolygonLabels": True}
"""Tags that hold masks, and whether these are outlines."""
MAX_CONFIG = 2**20
"""Characters of a labelling config, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where a labelling config takes masks.

    Attributes:
        from_name, to_name: names of the tag of labels and of the image.
        key: of the image in the data of a task.
        polygons: whether masks are outlines.
        labels: names of the labels.
    """

    from_name: str
    to_name: str
    key: str
    polygons: bool
    labels: tuple[str, ...]


@dataclass(kw_only=True, slots=True)
class LabelStudio:
    """The answers of one network.

    Attributes:
        segmenter: the network.
        images: where the images of tasks come from.
        version: names the network; Label Studio asks again for tasks whose prediction has another.
        say: gets what is left out.
        max_tasks: of a request.
    """

    segmenter: Segmenter
    images: Images
    version: str
    say: Callable[[str], None] = lambda text: None
    max_tasks: int = 1000
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def health(self) -> dict[str, Any]:
        """Answer of ``GET /health``."""
        return {"status": "UP", "model_class": "wsss"}

    def versions(self) -> dict[str, Any]:
        """Answer of ``GET /versions``."""
        return {"versions": [self.version]}

    def setup(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer of ``POST /setup``, which holds a token: nothing of the request is kept.

        Raises:
            Refused: the labelling config has no place for masks, or other labels.
        """
        if "schema" in request:
            self.target(request["schema"])
        return {"model_version": self.version}

    def webhook(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer of ``POST /webhook``: the network does not learn here."""
        return {}

    def predict(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer of ``POST /predict``: a prediction a task; no prediction for a task whose image cannot be had.

        Raises:
            Refused: the request has another shape, too many tasks or a config without a place for masks; or no image
                of it can be had.
        """
        tasks = request.get("tasks")
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks) or not tasks:
            raise Refused(400, "'tasks' is no list of tasks")
        if len(tasks) > self.max_tasks:
            raise Refused(413, f"{len(tasks)} tasks; at most {self.max_tasks} are taken at once")
        target = self.target(request.get("label_config"))
        results: list[dict[str, Any] | list[Any]] = []
        first: Refused | None = None
        for task in tasks:
            try:
                results.append(self._predicted(task, target))
            except Refused as error:
                self.say(f"task {short(task.get('id'), 20)} gets no prediction: {error.reason}")
                first = first or error
                results.append([])  # Label Studio stores none
        if first is not None and not any(results):
            raise first
        return {"results": results}

    def target(self, config: object) -> Target:
        """Where a labelling config takes masks of these classes.

        Raises:
            Refused: it is no config, has no brush or polygon labels, or none of the classes.
        """
        root = _parsed(config)
        controls = [one for one in root.iter() if one.tag in CONTROLS]
        if not controls:
            seen = sorted({one.tag for one in root.iter() if one.get("toName")})
            others = f"; it has {short(', '.join(map(str, seen)))}" if seen else ""
            raise Refused(422, f"the labelling config has neither BrushLabels nor PolygonLabels{others}")
        found = [_target(control, root) for control in controls]
        classes = set(self.segmenter.classes)
        best = max(found, key=lambda target: len(classes.intersection(target.labels)))
        if not classes.intersection(best.labels):
            labels, known = (short(", ".join(names)) for names in (best.labels, self.segmenter.classes))
            raise Refused(422, f"no label of the labelling config is a class of the run: {labels}, the run has {known}")
        return best

    def _predicted(self, task: Mapping[str, Any], target: Target) -> dict[str, Any]:
        data = task.get("data")
        name = data.get(target.key) if isinstance(data, dict) else None
        if not isinstance(name, str) or not name:
            raise Refused(400, f"the task has no image under 'data.{short(target.key)[1:-1]}'")
        image_HW3 = self.images.read(name)
        with self._one_at_a_time:
            prediction = self.segmenter.predict(image_HW3)
        certainty = prediction.certainty()
        label_HW = _only(prediction.label_HW, self.segmenter.classes, target.labels)
        place = Place(
            name=str(task.get("id", "task"))[:40],
            certainty=certainty,
            from_name=target.from_name,
            to_name=target.to_name,
        )
        result, _ = regions(place, label_HW, self.segmenter.classes, polygons=target.polygons)
        return {"result": result, "score": _score(prediction.label_HW, certainty), "model_version": self.version}


def _parsed(config: object) -> Element:
    if not isinstance(config, str) or len(config) > MAX_CONFIG:
        raise Refused(400, "'label_config' is no labelling config")
    try:
        root: Element = fromstring(config, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise Refused(400, "the labelling config is no XML that is read") from error
    return root


def _target(control: Element, root: Element) -> Target:
    """What a tag of labels says; its image is the tag that it names."""
    to_name = (control.get("toName") or "").split(",")[0]
    image = next((one for one in root.iter("Image") if one.get("name") == to_name), None)
    key = (image.get("value") or "") if image is not None else ""
    if not control.get("name") or not key.startswith("$"):
        raise Refused(422, f"{control.tag} of the labelling config has no name, or no Image with a value like $image")
    labels = tuple(label.get("value") or "" for label in control.iter("Label"))
    return Target(
        from_name=control.get("name") or "",
        to_name=to_name,
        key=key.removeprefix("$"),
        polygons=CONTROLS[str(control.tag)],
        labels=labels,
    )


def _only(label_HW: NDArray[np.uint8], classes: Sequence[str], labels: Sequence[str]) -> NDArray[np.uint8]:
    """The label map without the classes that the config lacks."""
    kept_V = np.array([0, *(k if name in labels else 0 for k, name in enumerate(classes, start=1))], np.uint8)
    return kept_V[label_HW]


def _score(label_HW: NDArray[np.uint8], certainty: Mapping[int, float]) -> float:
    """Certainty of a whole label map, in [0, 1]: that of its classes, weighted by their pixels."""
    weights = {index: count for index, count in count_indices(label_HW).items() if index in certainty}
    total = sum(weights.values())
    return round(sum(certainty[index] * count for index, count in weights.items()) / total, 4) if total else 0.0
