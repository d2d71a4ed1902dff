"""Maps of the present classes side by side, the absent ones left out: most images hold one or two of many classes.

Shape suffixes: B images, K classes, R present (image, class) pairs, S slots of an image, H x W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Slots:
    """Where each present class goes: its rank among those of its image.

    Attributes:
        image_R: of each pair, and so on.
        class_R: in 0..K-1.
        slot_R: in 0..S-1.
        taken_BS: bool, where the tags are; images that hold fewer classes than others leave slots empty.
    """

    image_R: Tensor
    class_R: Tensor
    slot_R: Tensor
    taken_BS: Tensor

    @classmethod
    def of(cls, present_BK: Tensor, device: torch.device) -> Slots:
        """Of image-level labels, for maps on a device; at least one slot. Tags on the host make it wait for nothing."""
        image_R, class_R = present_BK.nonzero(as_tuple=True)
        slot_R = present_BK.cumsum(dim=1)[image_R, class_R] - 1
        count_B = present_BK.sum(dim=1)
        taken_BS = torch.arange(max(1, int(count_B.max())), device=present_BK.device) < count_B[:, None]
        image_R, class_R, slot_R = torch.stack([image_R, class_R, slot_R]).to(device, non_blocking=True)
        return cls(image_R, class_R, slot_R, taken_BS)

    def pack(self, maps_BKHW: Tensor) -> Tensor:
        """(B, S, H, W) float32; empty slots are 0."""
        packed_BSHW = maps_BKHW.new_zeros((*self.taken_BS.shape, *maps_BKHW.shape[2:]), dtype=torch.float32)
        packed_BSHW[self.image_R, self.slot_R] = maps_BKHW[self.image_R, self.class_R].float()
        return packed_BSHW

    def unpack_(self, maps_BKHW: Tensor, packed_BSHW: Tensor) -> None:
        """Write each slot to its class; other classes keep what they hold."""
        maps_BKHW[self.image_R, self.class_R] = packed_BSHW[self.image_R, self.slot_R]
