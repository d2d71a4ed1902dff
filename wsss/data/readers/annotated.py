"""The source that most formats share: images named in annotation files, with words as labels and perhaps drawn objects.

A reader of such a format parses its files into ``AnnotatedImage`` values; all rules that do not depend on the format
(which image is meant, which labels are classes, what is missing or unlabelled) are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wsss.data.drawn import DrawnImage, DrawnMasks, Shape
from wsss.data.findings import BadData, Finding, Place
from wsss.data.photographs import Photographs
from wsss.data.readers.class_rules import ClassRules
from wsss.data.readers.image_finder import ImageFinder
from wsss.data.readers.listing import ListedImage, Listing, alike_splits, missing_images
from wsss.data.readers.reader import Options
from wsss.data.truth import Truth
from wsss.reporting import first_few

ONLY_SPLIT = "all"
"""The split of a data set that has none."""

Shapes = Callable[[ClassRules], tuple[Shape, ...] | None]
"""Given the classes, the drawn objects of an image; None where its annotation gives no area (boxes, points, lines)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedImage:
    """One image of an annotation file.

    Attributes:
        written: its name as the file writes it.
        split: its split.
        labels: words; None where the image has no annotation at all, which says nothing about its classes.
        place: where it stands.
        base: folder of the annotation file below the data folder; "" or ending in "/".
        absent: words of classes that the file says the image does not have.
        unknown: words of classes that the file leaves open for this image.
        shapes: its drawn objects, or None where the format has none.
        size: (H, W) that the file states, or None.
        found: name of the image, where the reader went from the images to their annotations.
        key: file and row where ``truth_of`` finds its objects again.
    """

    written: str
    split: str
    labels: tuple[str, ...] | None
    place: Place
    base: str = ""
    absent: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    shapes: Shapes | None = None
    size: tuple[int, int] | None = None
    found: str | None = None
    key: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedSource:
    """A ``Source`` of parsed images.

    Attributes:
        options: of the reader.
        photographs: all images below the data folder.
        images: in the order of the files.
        declared: class names that the files declare, in their order; None where they declare none.
        source: the file or folder they come from, for messages.
        finder: finds the image of a written name.
        truth: masks that are no drawn objects of ``images``.
        truth_of: given the classes and the images of a split by name, their masks, where objects stay on the disk.
        mask_folder: where masks lie as PNG files, or None.
        drawn: whether labels are those of drawn objects, where ``truth_of`` reads them.
    """

    options: Options
    photographs: Photographs
    images: Sequence[AnnotatedImage]
    declared: Sequence[str] | None
    source: Path
    finder: ImageFinder
    truth: Truth | None = None
    truth_of: Callable[[ClassRules, Mapping[str, AnnotatedImage]], Truth | None] | None = None
    mask_folder: Path | None = None
    drawn: bool = False

    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in order of appearance."""
        names = tuple(dict.fromkeys(image.split for image in self.images))
        if not names:
            raise BadData.at("table-empty", self.source, "it lists no image", "export it again, with annotations")
        for error in alike_splits(names, self.source):
            self.options.note(error)
        return names

    def listing(self, split: str) -> Listing:
        """One split.

        Raises:
            DataError: listed images are missing, listed twice, or of no known class.
        """
        seen = (label for image in self.images for label in (*(image.labels or ()), *image.absent, *image.unknown))
        rules = ClassRules(self.options, self.declared, seen, self.source)
        found = self._found(split)
        listed, drawn = [], {}
        for name, image in found.items():
            labels, unknown = rules.labels(image.labels or ()), rules.labels(image.unknown)
            listed.append(
                ListedImage(
                    name=name,
                    image=self.photographs.folder / self.photographs.files[name],
                    part=self.photographs.parts.get(name),
                    labels=labels,
                    unknown=tuple(label for label in unknown if label not in labels),
                    absent=rules.labels(image.absent),
                    place=image.place,
                )
            )
            shapes = None if image.shapes is None else image.shapes(rules)
            if shapes is not None:
                drawn[name] = DrawnImage(shapes, image.place, image.size)
        rules.say_left_out(self.options.note, self.source)
        return Listing(
            split=split,
            images=tuple(listed),
            classes=rules.classes,
            source=self.source,
            mask_folder=self.mask_folder,
            annotations=self._truth(rules, found, drawn),
            of_objects=any(image.labels and (image.shapes or self.drawn) for image in found.values()),
        )

    def _truth(
        self, rules: ClassRules, found: Mapping[str, AnnotatedImage], drawn: Mapping[str, DrawnImage]
    ) -> Truth | None:
        if self.truth_of is not None:
            return self.truth_of(rules, found)
        return self.truth or (DrawnMasks(drawn) if drawn else None)

    def _found(self, split: str) -> Mapping[str, AnnotatedImage]:
        """The images of a split that are annotated and on the disk, by name."""
        note, found = self.options.note, dict[str, AnnotatedImage]()
        missing: dict[str, Place] = {}
        bare: list[AnnotatedImage] = []
        labelled = any(image.labels is not None for image in self.images if image.split == split)  # no test split
        for image in self.images:
            if image.split != split:
                continue
            if image.labels is None and (self.options.need_tags or labelled):
                bare.append(image)
                continue
            try:
                name = image.found or self.finder.find(image.written, image.place, split=split, base=image.base)
            except BadData as error:
                note(error)
                continue
            if name is None:
                missing[image.written] = image.place
            elif name in found:
                what = f"'{image.written}' is listed before, at {found[name].place}"
                note(BadData.at("image-twice", image.place, what, "keep one entry for each image"))
            else:
                found[name] = image
        if bare:
            note(unlabelled_images(bare, self.source))
        if missing:
            note(missing_images(missing, self.source, self.photographs))
        return found


def unlabelled_images(images: Sequence[AnnotatedImage], source: Path) -> BadData:
    """The warning for images without an annotation, which are left out: whether they have a class is not known."""
    names = [image.written for image in images]
    what = f"{len(images)} images have no annotation and are left out ({first_few(names)})"
    findings = [Finding("image-unlabelled", image.place, f"no annotation for {image.written}") for image in images]
    return BadData(f"{source}: {what}", "annotate them; an empty annotation says that there is none", findings)


def below(path: Path, root: Path) -> str:
    """The folder of a file, below the data folder: "" or ending in "/"."""
    relative = path.parent.relative_to(root).as_posix()
    return "" if relative == "." else f"{relative}/"
