"""Images for inference: read once, resized to every scale, batched with others of the same shapes.

An image is resized, its aspect ratio kept, to a given area in whole patches, so nothing is padded, and only images
whose shapes agree at every scale share a batch. A batch is bounded in pixels, not in images. The whole photo exists in
the loader process alone: what leaves it is as large as the scales ask for, plus a copy of at most ``LARGEST_SIDE``
squared pixels where the caller wants one.

Shape suffixes: B images, H x W pixels of the original, H_s x W_s pixels at a scale.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional as F

from wsss.data.loading import read_ahead, reading
from wsss.data.records import Record

LARGEST_SIDE = 2048
"""Copies of images of a larger area than this squared are reduced to it: for refinement, CRF and pictures."""
LARGE_PHOTO = 1 << 24
"""A set with a photo of more pixels is read without loader processes: each takes as much memory as such a photo."""
COPIED_PIXELS = 1 << 23
"""At most so many pixels of such copies share a batch, or one image: two of the largest, or 27 of 640 x 480."""


@dataclass(frozen=True, slots=True)
class ScaledBatch:
    """Records and their images at each scale.

    Attributes:
        records: B of them.
        sizes: (H, W) of each original.
        scaled: for each scale (B, 3, H_s, W_s) uint8.
        images: each (H, W, 3) uint8 RGB, of its own size or reduced to ``LARGEST_SIDE`` squared pixels; empty where
            they were not asked for.
    """

    records: list[Record]
    sizes: list[tuple[int, int]]
    scaled: list[Tensor]
    images: list[Tensor]

    def pin_memory(self) -> ScaledBatch:
        """The same in page-locked memory, from which copies to a GPU run by themselves; called by torch's loader."""
        scaled, images = ([image.pin_memory() for image in some] for some in (self.scaled, self.images))
        return ScaledBatch(self.records, self.sizes, scaled, images)

    def at_scales(self, device: torch.device) -> list[Tensor]:
        """For each scale (B, 3, H_s, W_s) float32 in [0, 1] on a device."""
        return [images.to(device, non_blocking=True).float() / 255 for images in self.scaled]


class ScaledImages(Dataset[ScaledBatch]):
    """Batches of equal shapes, in an order that depends on the records alone.

    Args:
        records: what to read.
        scales: sides, in pixels, of squares whose area the image is resized to.
        stride: (rows, columns) of a patch.
        pixels: at most so many pixels of all scales together share a batch, or one image.
        images: whether batches bring copies of the images too.

    Attributes:
        batches: the records of each.
        largest: pixels of the largest image.
    """

    def __init__(
        self,
        records: Sequence[Record],
        scales: Sequence[int],
        stride: tuple[int, int],
        pixels: int,
        *,
        images: bool = False,
    ) -> None:
        self.scales = tuple(scales)
        self.stride = stride
        self.images = images
        sizes = [record.upright_size() for record in records]
        self.largest = max((height * width for height, width in sizes), default=0)
        self.batches = _batches(records, sizes, self.scales, stride, pixels)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> ScaledBatch:
        """One batch."""
        return scaled_batch(
            self.batches[index], map(_read, self.batches[index]), self.scales, self.stride, images_too=self.images
        )


def scaled_batch(
    records: list[Record],
    images: Iterator[Tensor],
    scales: Sequence[int],
    stride: tuple[int, int],
    *,
    images_too: bool = False,
) -> ScaledBatch:
    """Resize images (H, W, 3) uint8, one after the other, and stack them; their shapes must agree at each scale."""
    sizes, copies = [], []
    by_scale: list[list[Tensor]] = [[] for _ in scales]
    for image_HW3 in images:
        sizes.append((image_HW3.shape[0], image_HW3.shape[1]))
        for side, resized in zip(scales, by_scale, strict=True):
            resized.append(resize(image_HW3, scaled_size(*sizes[-1], side, stride)))
        if images_too:
            copies.append(reduced(image_HW3, LARGEST_SIDE))
        del image_HW3  # before the next one is decoded
    return ScaledBatch(records, sizes, [torch.stack(resized) for resized in by_scale], copies)


def _read(record: Record) -> Tensor:
    reading(record.name)
    return torch.from_numpy(record.decode())


def load_batches(dataset: ScaledImages, workers: int, device: torch.device | None = None) -> Iterator[ScaledBatch]:
    """Read batches ahead of their use, in order; a single batch and large photos are read in this process.

    Args:
        dataset: the batches.
        workers: processes that read them.
        device: where they will be used; None is the CPU.
    """
    pin_memory = device is not None and device.type == "cuda"
    workers = 0 if dataset.largest > LARGE_PHOTO else max(0, min(workers, len(dataset) - 1))
    return read_ahead(dataset, workers, pin_memory=pin_memory)


def scaled_size(height: int, width: int, side: int, stride: tuple[int, int]) -> tuple[int, int]:
    """(H, W) in whole patches, at least one, of about ``side`` squared pixels and the image's aspect ratio."""
    ratio = side / (height * width) ** 0.5
    return (
        max(1, round(height * ratio / stride[0])) * stride[0],
        max(1, round(width * ratio / stride[1])) * stride[1],
    )


def resize(image_HW3: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H_s, W_s) uint8, bilinear with antialiasing, as in training."""
    resized: Tensor = F.resize_image(image_HW3.permute(2, 0, 1), list(size), antialias=True)
    return resized


def reduced_size(height: int, width: int, side: int) -> tuple[int, int]:
    """(H, W) of an image, or where its area is larger than ``side`` squared, of that area and its aspect ratio."""
    ratio = min(1.0, side / (height * width) ** 0.5)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def reduced(image_HW3: Tensor, side: int) -> Tensor:
    """An image (H, W, 3) uint8 as it is, or resized to ``side`` squared pixels where it has more."""
    size = reduced_size(image_HW3.shape[0], image_HW3.shape[1], side)
    if size == tuple(image_HW3.shape[:2]):
        return image_HW3
    return resize(image_HW3, size).permute(1, 2, 0).contiguous()


def equal_sizes(sizes: Sequence[tuple[int, int]], indices: Sequence[int], pixels: int) -> list[list[int]]:
    """Indices of images of one size together, of at most so many pixels in all, or one image that has more."""
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in indices:
        groups[sizes[i]].append(i)
    parts: list[list[int]] = []
    for (height, width), group in groups.items():
        count = max(1, pixels // (height * width))
        parts += [group[first : first + count] for first in range(0, len(group), count)]
    return parts


def _batches(
    records: Sequence[Record],
    sizes: Sequence[tuple[int, int]],
    scales: tuple[int, ...],
    stride: tuple[int, int],
    pixels: int,
) -> list[list[Record]]:
    """Records of equal shapes at every scale together.

    By number of tags, so that few backward passes are wasted, then by size, so that many images are refined together.
    """
    buckets: dict[tuple[tuple[int, int], ...], list[tuple[int, Record]]] = defaultdict(list)
    sized = [(len(record.tags), size, record) for record, size in zip(records, sizes, strict=True)]
    for _, (height, width), record in sorted(sized, key=lambda entry: entry[:2]):
        shapes = tuple(scaled_size(height, width, side, stride) for side in scales)
        buckets[shapes].append((min(height * width, LARGEST_SIDE**2), record))
    batches: list[list[Record]] = []
    for shapes in sorted(buckets):
        most, copied = max(1, pixels // sum(height * width for height, width in shapes)), 0
        for i, (copy, record) in enumerate(buckets[shapes]):
            copied += copy
            if i == 0 or len(batches[-1]) == most or copied > COPIED_PIXELS:
                batches.append([])
                copied = copy
            batches[-1].append(record)
    return batches
