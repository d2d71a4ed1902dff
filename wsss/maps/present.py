"""Maps of the present classes of a batch, and of no other: most images hold one or two of many classes.

Shape suffixes: B images, K classes, R present (image, class) pairs, S slots of an image (the largest number of present
classes), h x w the size of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class PresentMaps:
    """One map for each present (image, class) pair: a ragged batch.

    The indices stay on the host, so that choosing and counting never wait for a device.

    Attributes:
        values_Rhw: float32, on any device; images in order, the classes of an image ascending. R may be 0.
        image_R: int64 on the host, the image of each pair, in 0..B-1.
        class_R: int64 on the host, its class, in 0..K-1.
        num_images: B, images without a present class included.
        num_classes: K.
    """

    values_Rhw: Tensor
    image_R: Tensor
    class_R: Tensor
    num_images: int
    num_classes: int

    @classmethod
    def of(cls, values_Rhw: Tensor, present_BK: Tensor) -> PresentMaps:
        """From one map a pair, in the order of ``present_BK.nonzero()``."""
        image_R, class_R = present_BK.cpu().nonzero(as_tuple=True)
        return cls(values_Rhw.float(), image_R, class_R, *present_BK.shape)

    @classmethod
    def from_dense(cls, maps_BKhw: Tensor, present_BK: Tensor) -> PresentMaps:
        """From maps of all classes; those of absent classes are left out."""
        image_R, class_R = present_BK.cpu().nonzero(as_tuple=True)
        values_Rhw = maps_BKhw[_moved(image_R, maps_BKhw.device), _moved(class_R, maps_BKhw.device)]
        return cls.of(values_Rhw, present_BK)

    @classmethod
    def gathered(cls, parts: Sequence[PresentMaps], images: Sequence[Sequence[int]]) -> PresentMaps:
        """One batch from disjoint parts of it.

        Args:
            parts: maps of some images each.
            images: for each part, the places of its images in the batch.
        """
        image_R = torch.cat([torch.tensor(places)[part.image_R] for part, places in zip(parts, images, strict=True)])
        class_R = torch.cat([part.class_R for part in parts])
        values_Rhw = torch.cat([part.values_Rhw for part in parts])
        order_R = (image_R * parts[0].num_classes + class_R).argsort()
        return cls(
            values_Rhw[_moved(order_R, values_Rhw.device)],
            image_R[order_R],
            class_R[order_R],
            sum(part.num_images for part in parts),
            parts[0].num_classes,
        )

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values_Rhw.device

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.values_Rhw.shape[1], self.values_Rhw.shape[2]

    @property
    def counts(self) -> Tensor:
        """(B,) int64 on the host: how many classes each image holds."""
        return torch.bincount(self.image_R, minlength=self.num_images)

    @property
    def num_slots(self) -> int:
        """S, at least 1."""
        return max(1, int(self.counts.max())) if self.num_images else 1

    @property
    def slots(self) -> Tensor:
        """(R,) int64 on the host: the rank of each class among those of its image, in 0..S-1."""
        counts_B = self.counts
        return torch.arange(len(self.image_R)) - (counts_B.cumsum(0) - counts_B)[self.image_R]

    @property
    def taken(self) -> Tensor:
        """(B, S) bool on the host: which slots hold a class."""
        return torch.arange(self.num_slots) < self.counts[:, None]

    @property
    def present(self) -> Tensor:
        """(B, K) bool on the host: the image-level labels."""
        present_BK = torch.zeros(self.num_images, self.num_classes, dtype=torch.bool)
        present_BK[self.image_R, self.class_R] = True
        return present_BK

    def with_values(self, values_Rhw: Tensor) -> PresentMaps:
        """The same pairs with other maps, of any size and on any device."""
        return replace(self, values_Rhw=values_Rhw)

    def to(self, device: torch.device | str) -> PresentMaps:
        """The same with its values on another device; waits for them where that is the CPU."""
        return self.with_values(self.values_Rhw.to(device))

    def at_size(self, size: tuple[int, int], *, antialias: bool = False) -> PresentMaps:
        """The same maps resampled, bilinear (``align_corners=False``); equal ones where the size is theirs.

        ``antialias`` takes part only where the new size has fewer pixels.
        """
        if size == self.size:
            return self
        if len(self.image_R) == 0:
            return self.with_values(self.values_Rhw.new_zeros(0, *size))
        antialias = antialias and size[0] * size[1] < self.size[0] * self.size[1]
        values_1Rhw = F.interpolate(
            self.values_Rhw[None], size=size, mode="bilinear", align_corners=False, antialias=antialias
        )
        return self.with_values(values_1Rhw[0])

    def dense(self) -> Tensor:
        """(B, K, h, w) float32; maps of absent classes are 0."""
        maps_BKhw = self.values_Rhw.new_zeros(self.num_images, self.num_classes, *self.size)
        maps_BKhw[_moved(self.image_R, self.device), _moved(self.class_R, self.device)] = self.values_Rhw
        return maps_BKhw

    def pack(self) -> Tensor:
        """(B, S, h, w) float32, the present classes of each image side by side; slots without a class are 0.

        A view of the values where all images hold equally many classes.
        """
        if len(self.image_R) == self.num_images * self.num_slots:
            return self.values_Rhw.view(self.num_images, self.num_slots, *self.size)
        packed_BShw = self.values_Rhw.new_zeros(self.num_images, self.num_slots, *self.size)
        packed_BShw[_moved(self.image_R, self.device), _moved(self.slots, self.device)] = self.values_Rhw
        return packed_BShw

    def unpack(self, packed_BShw: Tensor) -> PresentMaps:
        """The same pairs with the maps of their slots."""
        device = packed_BShw.device
        return self.with_values(packed_BShw[_moved(self.image_R, device), _moved(self.slots, device)])

    def of_image(self, image: int) -> Tensor:
        """(R_i, h, w): the maps of one image, a view."""
        return self.values_Rhw[self._pairs_of(image)]

    def select(self, images: Sequence[int]) -> PresentMaps:
        """The maps of some images, in this order; a view where the images follow each other."""
        ranges = [self._pairs_of(image) for image in images]
        if all(one.stop == next_one.start for one, next_one in pairwise(ranges)):
            pairs = slice(ranges[0].start, ranges[-1].stop) if ranges else slice(0, 0)
            values_Rhw, class_R = self.values_Rhw[pairs], self.class_R[pairs]
        else:
            index_R = torch.cat([torch.arange(one.start, one.stop) for one in ranges])
            values_Rhw, class_R = self.values_Rhw[_moved(index_R, self.device)], self.class_R[index_R]
        counts_B = torch.tensor([one.stop - one.start for one in ranges], dtype=torch.long)
        image_R = torch.arange(len(ranges)).repeat_interleave(counts_B)
        return PresentMaps(values_Rhw, image_R, class_R, len(ranges), self.num_classes)

    def _pairs_of(self, image: int) -> slice:
        """The places of an image's pairs, which follow each other."""
        first, end = torch.searchsorted(self.image_R, torch.tensor([image, image + 1])).tolist()
        return slice(first, end)


def _moved(index_R: Tensor, device: torch.device) -> Tensor:
    return index_R.to(device, non_blocking=True)
