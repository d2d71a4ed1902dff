"""Images for inference: read once, resized to every scale, batched with others of the same shapes.

An image is brought, its aspect ratio kept, to a given area in whole patches, so nothing is padded, and only images
whose shapes agree at every scale share a batch.

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

from wsss.data.images import image_size, read_image
from wsss.data.loading import read_ahead, reading
from wsss.data.records import Record


@dataclass(frozen=True, slots=True)
class ScaledBatch:
    """Records and their images, as read and at each scale.

    Attributes:
        records: B of them.
        images: each (H, W, 3) uint8 RGB, of its own size.
        scaled: for each scale (B, 3, H_s, W_s) uint8.
    """

    records: list[Record]
    images: list[Tensor]
    scaled: list[Tensor]

    def pin_memory(self) -> ScaledBatch:
        """The same in memory that a GPU reads by itself; torch's loader asks for it."""
        images, scaled = ([image.pin_memory() for image in some] for some in (self.images, self.scaled))
        return ScaledBatch(self.records, images, scaled)

    def at_scales(self, device: torch.device) -> list[Tensor]:
        """For each scale (B, 3, H_s, W_s) float32 in [0, 1] on a device."""
        return [images.to(device, non_blocking=True).float() / 255 for images in self.scaled]


class ScaledImages(Dataset[ScaledBatch]):
    """Batches of equal shapes, in an order that depends on the records alone.

    Args:
        records: what to read.
        scales: sides, in pixels, of squares whose area the image is brought to.
        stride: (rows, columns) of a patch.
        batch_size: at most so many images share a batch.
    """

    def __init__(
        self, records: Sequence[Record], scales: Sequence[int], stride: tuple[int, int], batch_size: int
    ) -> None:
        self.scales = tuple(scales)
        self.stride = stride
        self.batches = _batches(records, self.scales, stride, batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> ScaledBatch:
        """One batch."""
        records = self.batches[index]
        images = [_read(record) for record in records]
        scaled = [
            torch.stack(
                [resize(image, scaled_size(image.shape[0], image.shape[1], side, self.stride)) for image in images]
            )
            for side in self.scales
        ]
        return ScaledBatch(records, images, scaled)


def _read(record: Record) -> Tensor:
    reading(record.name)
    return torch.from_numpy(read_image(record.image))


def load_batches(dataset: ScaledImages, workers: int, device: torch.device | None = None) -> Iterator[ScaledBatch]:
    """Read batches ahead of their use, in order; nothing runs ahead of the only one, so it needs no process.

    Args:
        dataset: the batches.
        workers: processes that read them.
        device: where they will be used; None is the CPU.
    """
    pin_memory = device is not None and device.type == "cuda"
    return read_ahead(dataset, max(0, min(workers, len(dataset) - 1)), pin_memory=pin_memory)


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


def equal_sizes(images: Sequence[Tensor], indices: Sequence[int], pixels: int) -> list[list[int]]:
    """Indices of images (H, W, 3) of one size together, of at most so many pixels in all unless one has more."""
    groups: dict[torch.Size, list[int]] = defaultdict(list)
    for i in indices:
        groups[images[i].shape].append(i)
    parts: list[list[int]] = []
    for (height, width, _), group in groups.items():
        count = max(1, pixels // (height * width))
        parts += [group[first : first + count] for first in range(0, len(group), count)]
    return parts


def _batches(
    records: Sequence[Record], scales: tuple[int, ...], stride: tuple[int, int], batch_size: int
) -> list[list[Record]]:
    """Records of equal shapes at every scale together.

    By number of tags, so that few backwards are wasted, then by size, so that many are refined together.
    """
    buckets: dict[tuple[tuple[int, int], ...], list[Record]] = defaultdict(list)
    sized = [(len(record.tags), image_size(record.image), record) for record in records]
    for _, (height, width), record in sorted(sized, key=lambda entry: entry[:2]):
        buckets[tuple(scaled_size(height, width, side, stride) for side in scales)].append(record)
    batches: list[list[Record]] = []
    for shape in sorted(buckets):
        bucket = buckets[shape]
        batches += [bucket[first : first + batch_size] for first in range(0, len(bucket), batch_size)]
    return batches
