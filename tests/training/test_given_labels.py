"""Label maps that a training is given: what has changed since they were made is said, and stands in the supervision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsss.config import Config
from wsss.data.dataset import open_data
from wsss.data.images import read_image
from wsss.data.masks import read_mask, write_mask
from wsss.data.records import Record, TaggedSet
from wsss.errors import DataError
from wsss.models.checkpoint import load_network
from wsss.outputs.folder import Source, held_folder
from wsss.outputs.provenance import labels_supervision
from wsss.reporting import Silent
from wsss.training.given_labels import check_pixels
from wsss.training.start import train_segmenter


class Saying(Silent):
    """A reporter that keeps the remarks."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def write_labels(out: Path, tagged: TaggedSet, tags: tuple[int, ...] | None = None, **settings: Any) -> Path:
    """Labels of background alone, as make-pseudo writes them; with ``tags`` as if all images had had these."""
    settings = {"kind": "pseudo", "classes": list(tagged.classes), "supervision": ["tags"], **settings}
    with held_folder(out, settings, Config(), Silent(), overwrite=False) as folder:
        for record in tagged.records:
            made = Source.of(record)
            if tags is not None:
                made = Source(name=made.name, origin=made.origin, digest=made.digest, tags=tags)
            folder.write(made, np.zeros(read_image(record.image).shape[:2], np.uint8))
    return out


def test_tags_that_changed_since_the_labels_were_made(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    tagged = open_data(scenes, split="train")
    other = [record.name for record in tagged.records if record.tags != (1,)]
    out = write_labels(tmp_path / "made", tagged, tags=(1,))
    reporter = Saying()
    train_segmenter(tiny_config(segment__epochs=1), tmp_path / "run", reporter, labels=out)
    told = f"{len(other)} images of 24 got other tags after the label maps in {out} were made ({other[0]}, "
    assert sum(text.startswith(told) for text in reporter.said) == 1
    masks, reporter = write_labels(tmp_path / "masks", tagged, tags=(), kind="segmentation"), Saying()
    train_segmenter(tiny_config(segment__epochs=1), tmp_path / "two", reporter, labels=masks)  # predict takes no tags
    assert not any("tags after" in text for text in reporter.said)


def test_labels_that_somebody_changed_are_named_and_count_as_supervision(
    tmp_path: Path, tiny_config: Any, scenes: Path
) -> None:
    tagged = open_data(scenes, split="train")
    out, name = write_labels(tmp_path / "made", tagged), tagged.records[3].name
    reporter = Saying()
    train_segmenter(tiny_config(segment__epochs=1), tmp_path / "one", reporter, labels=out)
    assert not any("wrote them" in text for text in reporter.said)
    assert load_network(tmp_path / "one")[0].supervision == ("tags",)
    path = out / "labels" / f"{name}.png"
    drawn_HW = read_mask(path)
    drawn_HW[:4, :4] = 1
    write_mask(path, drawn_HW)
    train_segmenter(tiny_config(segment__epochs=1), tmp_path / "two", reporter, labels=out)
    told = f"1 of 24 label maps in {out / 'labels'} changed after make-pseudo or predict wrote them ({name})"
    assert reporter.said.count(told) == 1
    assert load_network(tmp_path / "two")[0].supervision == ("tags", "label maps")


@pytest.mark.parametrize(
    ("manifest", "kinds"),
    [
        (None, ("label maps",)),
        ("{}", ("label maps",)),
        ('{"supervision": ["tags", "saliency maps"]}', ("tags", "saliency maps")),
        ('{"supervision": []}', ("a run that does not say its supervision",)),
    ],
)
def test_supervision_of_label_maps(tmp_path: Path, manifest: str | None, kinds: tuple[str, ...]) -> None:
    """``predict`` writes an empty list where its network does not say what it learnt from."""
    (tmp_path / "labels").mkdir()
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    assert labels_supervision(tmp_path / "labels") == kinds


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[..., tuple[Path, TaggedSet]]:
    """Label maps of 2 x 2 pixels that no program of ours wrote, each of one value, and images with these tags."""

    def make(*images: tuple[int, tuple[int, ...]]) -> tuple[Path, TaggedSet]:
        records = []
        for number, (value, tags) in enumerate(images):
            write_mask(tmp_path / "maps" / f"{number}.png", np.full((2, 2), value, np.uint8))
            records.append(Record(name=str(number), image=tmp_path / f"{number}.jpg", tags=tags))
        root = tmp_path / "data"
        tagged = TaggedSet(root=root, split="train", classes=("cat", "dog"), records=records, tags_source="tags.csv")
        return tmp_path / "maps", tagged

    return make


@pytest.mark.parametrize("value", [0, 255])
def test_label_maps_without_any_class_are_named(foreign: Any, value: int) -> None:
    maps, tagged = foreign((value, (0,)), (value, (1,)))
    reporter = Saying()
    check_pixels(maps, tagged, reporter)
    (said,) = reporter.said
    assert said.startswith(f"no label map in {maps} holds a pixel of a class")


def test_label_maps_at_odds_with_the_tags_are_named(foreign: Any) -> None:
    maps, tagged = foreign((1, (0,)), (2, (0,)), (1, (0, 1)), (0, (1,)))
    reporter = Saying()
    check_pixels(maps, tagged, reporter)
    assert reporter.said == ["1 label map of 4 holds a class that the tags of its image do not name (1)"]


def test_a_class_of_which_no_label_map_has_a_pixel_is_named(foreign: Any) -> None:
    maps, tagged = foreign((1, (0,)), (0, (1,)))
    reporter = Saying()
    check_pixels(maps, tagged, reporter)
    assert reporter.said == ["no label map holds a pixel of 'dog': nothing is learnt of it"]


def test_an_index_that_no_class_has_is_refused(foreign: Any) -> None:
    maps, tagged = foreign((1, (0,)), (3, (1,)))
    with pytest.raises(DataError, match=r"1\.png: holds class index 3; there are 2 classes"):
        check_pixels(maps, tagged, Silent())
