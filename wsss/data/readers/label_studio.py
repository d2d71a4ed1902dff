"""Label Studio's JSON: a list of tasks with choices for whole images, and polygons, boxes and brush strokes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wsss.config import Reading
from wsss.data.areas import Area, BadShape, outlined
from wsss.data.drawn import Shape
from wsss.data.findings import BadData, Finding, Place
from wsss.data.images import split_suffix
from wsss.data.masks import IGNORE_INDEX
from wsss.data.near_names import NearNames
from wsss.data.photographs import all_images
from wsss.data.readers.annotated import ONLY_SPLIT, AnnotatedImage, AnnotatedSource, Shapes
from wsss.data.readers.brush import brushed
from wsss.data.readers.class_rules import ClassRules
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.json_fields import as_list, as_object, as_text, candidates, only, prefix_of, read_json
from wsss.data.readers.reader import Options, Reader

CHOICES = ("choices", "taxonomy")
"""Results about the whole image."""


@dataclass(frozen=True, slots=True)
class Result:
    """One result of an annotation: the group it is of, its labels, and its value where it is a region."""

    group: str
    labels: tuple[str, ...]
    region: dict[str, Any] | None
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One image and the results of each of its annotations, the one that counts first; empty without annotations."""

    image: str
    place: Place
    said: tuple[tuple[Result, ...], ...]


def _files(root: Path, reading: Reading) -> list[Path]:
    return [path for path in candidates(root, reading, ".json") if _is_export(prefix_of(path))]


def _is_export(text: str) -> bool:
    """Whether a file begins like a list of tasks; ``data`` may come behind long brush strokes."""
    said = any(f'"{key}"' in text for key in ("annotations", "completions", "predictions"))
    return text.lstrip().startswith("[") and said and ('"data"' in text or '"result"' in text)


def _sniff(root: Path, reading: Reading) -> str | None:
    found = _files(root, reading)
    return f"{found[0].name} is a list of Label Studio's tasks" if found else None


def _open(root: Path, options: Options) -> AnnotatedSource:
    path = only(_files(root, options.reading), root)
    tasks = [_task(value, number, path) for number, value in enumerate(as_list(read_json(path), "it", Place(path)))]
    if (options.need_tags or options.classes is None) and not any(task.said for task in tasks):
        what = "no task has an annotation; predictions and drafts are not read"
        fix = "submit annotations in Label Studio (predictions can be copied to them), and export again"
        raise BadData.at("tags-none", path, what, fix)
    wanted = _wanted(tasks, options.reading, path)
    _say_differing(tasks, wanted, options, path)
    photographs = all_images(root, options.note)
    return AnnotatedSource(
        options=options,
        photographs=photographs,
        images=[_image(task, wanted, options) for task in tasks],
        declared=None,
        source=path,
        finder=ImageFinder(photographs, uploads=True),
    )


def _task(value: Any, number: int, path: Path) -> Task:
    """One task, checked. Who annotated it is not kept."""
    place = Place(path, entry=f"task {number}")
    task = as_object(value, "a task", place)
    if type(task.get("id")) is int:
        place = Place(path, entry=f"task {task['id']}")
    annotations = [
        as_object(one, "an annotation", place)
        for one in as_list(task.get("annotations", task.get("completions")), "annotations", place)
    ]
    counted = [one for one in annotations if not (one.get("was_cancelled") or one.get("skipped"))]
    counted.sort(key=lambda one: (bool(one.get("ground_truth")), _time(one)), reverse=True)
    said = tuple(tuple(_results(as_list(one.get("result"), "result", place), place)) for one in counted)
    return Task(_image_of(as_object(task.get("data"), "data", place), place), place, said)


def _time(annotation: dict[str, Any]) -> str:
    """When an annotation was changed last; ISO times sort as text."""
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _image_of(data: dict[str, Any], place: Place) -> str:
    """The image of a task: the value under ``image``, or the only one that looks like an image."""
    if isinstance(data.get("image"), str):
        return str(data["image"])
    found = [value for value in data.values() if isinstance(value, str) and _is_image(value)]
    if len(set(found)) != 1:
        what = f"{len(found)} values of data look like images ({', '.join(data) or 'it has no key'})"
        raise BadData.at("image-missing", place, what, "keep one image in each task")
    return found[0]


def _is_image(value: str) -> bool:
    return bool(split_suffix(value.split("?", 1)[0])[1] or split_suffix(value)[1])


def _results(values: Sequence[Any], place: Place) -> Iterator[Result]:
    """The results of one annotation, without choices that are about a region."""
    results = [as_object(one, "a result", place) for one in values]
    regions = {str(one.get("id")) for one in results if one.get("type") not in CHOICES}
    for one in results:
        kind, value = str(one.get("type")), as_object(one.get("value"), "value", place)
        group = str(one.get("from_name"))
        if kind in CHOICES:
            about_region = set(value) - {kind} or str(one.get("id")) in regions
            if not about_region:
                yield Result(group, tuple(_words(as_list(value.get(kind), kind, place), place)), None)
        elif kind.endswith("labels"):
            labels = tuple(as_text(label, "a label", place) for label in as_list(value.get(kind), kind, place))
            yield Result(group, labels, value, turned=one.get("image_rotation") not in (None, 0))


def _words(values: Iterable[Any], place: Place) -> Iterator[str]:
    """Choices, or the last word of each path of a taxonomy."""
    for value in values:
        yield as_text(value[-1] if isinstance(value, list) and value else value, "a choice", place)


def _wanted(tasks: Sequence[Task], reading: Reading, path: Path) -> Callable[[Result], bool]:
    """Which results give tags: those of one group of choices, and all regions.

    Raises:
        DataError: there are several groups of choices and none is asked for, or there is no such group.
    """
    results = [result for task in tasks for said in task.said for result in said]
    choices = dict.fromkeys(result.group for result in results if result.region is None)
    regions = dict.fromkeys(result.group for result in results if result.region is not None)
    field, only_from = reading.tag_field, reading.tags_from
    if field is not None and field not in (*choices, *regions):
        near = NearNames([*choices, *regions]).ask(field)
        what = f"no group '{field}'{near}; there are {', '.join([*choices, *regions])}"
        raise BadData.at("tag-field", path, what, f"--tag-field {next(iter([*choices, *regions]), 'NAME')}")
    if field is None and len(choices) > 1 and only_from != "shapes":
        what = f"several groups of choices: {', '.join(choices)}"
        raise BadData.at("tag-field", path, what, f"--tag-field {next(iter(choices))}")
    region_alone = field in regions and field not in choices

    def wanted(result: Result) -> bool:
        if result.region is not None:
            return only_from != "file" and (not region_alone or result.group == field)
        return only_from != "shapes" and not region_alone and (field is None or result.group == field)

    return wanted


def _image(task: Task, wanted: Callable[[Result], bool], options: Options) -> AnnotatedImage:
    each = [[result for result in said if wanted(result)] for said in task.said]
    if options.reading.annotators == "newest":
        each = each[:1]
    results = [result for said in each for result in said]
    regions = [result for result in results if result.region is not None]
    return AnnotatedImage(
        written=task.image,
        split=ONLY_SPLIT,
        labels=_labels(results) if each else None,
        place=task.place,
        shapes=_shapes(regions) if regions else None,
    )


def _say_differing(tasks: Sequence[Task], wanted: Callable[[Result], bool], options: Options, path: Path) -> None:
    """Note the images whose annotations have different labels."""
    found = []
    for task in tasks:
        labels = [set(_labels(filter(wanted, said))) for said in task.said]
        if any(one != labels[0] for one in labels):
            found.append(Finding("annotators-differ", task.place, f"annotators differ on {task.image}"))
    if found:
        union = options.reading.annotators == "union"
        taken = "the labels of all are taken" if union else "the ground truth counts, else the newest annotation"
        what = f"{path}: annotators differ on {len(found)} images (first: {found[0].place.entry}); {taken}"
        options.note(BadData(what, "--annotators newest|union", found))


def _labels(results: Iterable[Result]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(label for result in results for label in result.labels))


def _shapes(regions: Sequence[Result]) -> Shapes | None:
    """The areas of an image; None where it has none, or a region that has no area."""
    areas = [_area(result) for result in regions]
    found = [area for area in areas if area is not None]
    if not found or len(found) < len(areas):
        return None

    def shapes(rules: ClassRules) -> tuple[Shape, ...]:
        pairs = zip(regions, found, strict=True)
        return tuple(Shape(_index(result.labels, rules), area) for result, area in pairs)

    return shapes


def _index(labels: Iterable[str], rules: ClassRules) -> int:
    """The class index of a region; ignored where it has no label or several that differ."""
    indices = {rules.index(label) for label in labels}
    return indices.pop() if len(indices) == 1 else IGNORE_INDEX


def _area(result: Result) -> Callable[[tuple[int, int]], Area] | None:
    value = result.region or {}
    if result.turned and ("rle" in value or "points" in value):
        return _turned
    if "rle" in value:
        return partial(brushed, value["rle"])
    return partial(_percent, value["points"]) if "points" in value else None


def _turned(size: tuple[int, int]) -> Area:
    raise BadShape("a region of an image that was turned in Label Studio (image_rotation): its place is not known")


def _percent(points: Any, size: tuple[int, int]) -> Area:
    """A polygon whose corners are percentages of the width and height of the image."""
    try:
        outline = [number for x, y in points for number in (float(x) * size[1] / 100, float(y) * size[0] / 100)]
    except (TypeError, ValueError, OverflowError) as error:
        raise BadShape("a polygon whose points are no pairs of numbers") from error
    return outlined([outline], size)


LABEL_STUDIO = Reader(
    name="label-studio",
    looks_for="a JSON list of Label Studio's tasks",
    sniff=_sniff,
    open=_open,
    photographs=all_images,
    lists_all=False,
)
