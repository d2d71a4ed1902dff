"""Batches of images for inference: equal shapes, every image once, each as it would be alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from wsss.data import scaled
from wsss.data.dataset import open_data
from wsss.data.images import image_size
from wsss.data.records import TaggedSet
from wsss.data.scaled import ScaledBatch, ScaledImages, equal_sizes, load_batches, reduced_size

SCALES = (48, 72)
STRIDE = (8, 8)


@pytest.fixture
def tagged(scenes: Path) -> TaggedSet:
    """Scenes of two shapes."""
    return open_data(scenes, split="train")


EACH = 40 * 56 + 64 * 80
"""Pixels of one of the scenes at both scales."""


def images(tagged: TaggedSet, count: int) -> ScaledImages:
    """Batches of at most so many images."""
    return ScaledImages(tagged.records, SCALES, STRIDE, count * EACH, images=True)


@pytest.mark.parametrize("batch_size", [2, 5, 100])
def test_mixed_shapes_are_batched_as_if_each_image_were_alone(tagged: TaggedSet, batch_size: int) -> None:
    """Nothing is padded: exactly equal, and every image once."""
    alone = {batch.records[0].name: batch for batch in load_batches(images(tagged, 1), 0)}
    assert {tuple(batch.scaled[0].shape) for batch in alone.values()} == {(1, 3, 40, 56), (1, 3, 56, 40)}
    seen = []
    for batch in load_batches(images(tagged, batch_size), 0):
        assert len(batch.records) <= batch_size
        assert batch.sizes == [tuple(image.shape[:2]) for image in batch.images]
        for i, record in enumerate(batch.records):
            seen.append(record.name)
            assert torch.equal(batch.images[i], alone[record.name].images[0])
            for together, single in zip(batch.scaled, alone[record.name].scaled, strict=True):
                assert torch.equal(together[i], single[0])
    assert sorted(seen) == sorted(record.name for record in tagged.records)


def test_images_of_one_size_are_grouped_up_to_so_many_pixels() -> None:
    sizes = [(2, 3), (3, 2), (2, 3), (9, 9), (2, 3), (2, 3)]
    assert equal_sizes(sizes, range(6), 12) == [[0, 2], [4, 5], [1], [3]]
    assert equal_sizes(sizes, [4, 2], 100) == [[4, 2]]
    assert equal_sizes(sizes, range(6), 1) == [[0], [2], [4], [5], [1], [3]]
    assert equal_sizes(sizes, [], 1) == []


def test_a_batch_is_bounded_in_pixels(tagged: TaggedSet) -> None:
    """One image above the bound is a batch of its own; just below it three become two and one."""
    assert {len(batch) for batch in ScaledImages(tagged.records, SCALES, STRIDE, 1).batches} == {1}
    assert max(len(batch) for batch in ScaledImages(tagged.records, SCALES, STRIDE, 3 * EACH).batches) == 3
    assert max(len(batch) for batch in ScaledImages(tagged.records, SCALES, STRIDE, 3 * EACH - 1).batches) == 2


def test_copies_of_a_batch_are_bounded_in_pixels(tagged: TaggedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five scenes fit, and less than one is a batch of its own."""
    height, width = image_size(tagged.records[0].image)
    for pixels, most in ((5 * height * width, 5), (1, 1)):
        monkeypatch.setattr(scaled, "COPIED_PIXELS", pixels)
        batches = images(tagged, 100).batches
        assert max(len(batch) for batch in batches) == most
        assert sum(len(batch) for batch in batches) == len(tagged)


def test_copies_are_bounded_in_pixels(tagged: TaggedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole photo stays in the loader; its size is kept, and what is small enough stays as it is."""
    whole = images(tagged, 1)[0]
    height, width = whole.sizes[0]
    assert whole.images[0].shape == (height, width, 3)
    monkeypatch.setattr(scaled, "LARGEST_SIDE", 40)
    small = images(tagged, 1)[0]
    assert small.sizes == [(height, width)]
    assert small.images[0].shape[0] * small.images[0].shape[1] == pytest.approx(1600, rel=0.05)
    assert torch.equal(small.scaled[0], whole.scaled[0])
    assert ScaledImages(tagged.records, SCALES, STRIDE, 1)[0].images == []
    assert reduced_size(600, 600, 300) == (300, 300)
    assert reduced_size(300, 299, 300) == (300, 299)
    assert reduced_size(8000, 6000, 2048) == (2365, 1774)


def test_equal_sizes_are_neighbours_among_equally_many_tags(tagged: TaggedSet) -> None:
    """So that many share a refinement."""
    for batch in images(tagged, 100).batches:
        keys = [(len(record.tags), image_size(record.image)) for record in batch]
        assert keys == sorted(keys)


def test_pinning_keeps_every_value(tagged: TaggedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU nothing can be pinned: a marked copy stands in for it."""
    pinned: list[Tensor] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor.clone()) or pinned[-1])
    batch = images(tagged, 3)[0]
    copy = batch.pin_memory()
    assert copy.records == batch.records
    held = {id(tensor) for tensor in pinned}
    for before, after in zip((*batch.images, *batch.scaled), (*copy.images, *copy.scaled), strict=True):
        assert id(after) in held
        assert torch.equal(before, after)


@pytest.mark.parametrize(("device", "pins"), [(None, False), ("cpu", False), ("cuda", True)])
def test_batches_for_a_gpu_are_pinned(
    tagged: TaggedSet, monkeypatch: pytest.MonkeyPatch, device: str | None, pins: bool
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(scaled, "read_ahead", lambda *args, pin_memory: iter([asked.append(pin_memory)]))
    list(load_batches(images(tagged, 3), 0, None if device is None else torch.device(device)))
    assert asked == [pins]


class Told(ScaledImages):
    """Says whether a worker read it, in place of the images."""

    def __getitem__(self, index: int) -> ScaledBatch:
        return ScaledBatch(self.batches[index], [], [], [torch.tensor(get_worker_info() is not None)])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_only_batch_needs_no_process(tagged: TaggedSet, count: int) -> None:
    told = Told(tagged.records[:count], SCALES, STRIDE, 1)
    assert [bool(batch.images[0]) for batch in load_batches(told, 2)] == [count > 1] * count


def test_large_photos_need_no_process(tagged: TaggedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(tagged.records[:3], SCALES, STRIDE, 1)
    assert told.largest == 48 * 64
    for pixels, process in ((48 * 64, True), (48 * 64 - 1, False)):
        monkeypatch.setattr(scaled, "LARGE_PHOTO", pixels)
        assert [bool(batch.images[0]) for batch in load_batches(told, 2)] == [process] * 3
