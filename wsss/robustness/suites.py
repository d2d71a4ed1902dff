"""The suites of perturbations, and the rows that each measures.

Shape suffixes: B images, K classes, H x W pixels, h x w patch grid, 3 RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wsss.models.network import Network
from wsss.robustness.attack import bounded_attack, mask_loss, patch_attack, tag_loss
from wsss.robustness.corruptions import CORRUPTIONS, SEVERITIES, TEXTURE_FREE, corrupt, random_of
from wsss.robustness.occlusion import ORDERS, Shuffle, cell_places, cells_at, fill, hidden_patches, pixels

SuiteName = Literal["corruption", "occlusion", "shuffle", "patch", "adversarial"]

HIDDEN_SHARES = (0.25, 0.5, 0.75)
"""Shares of the patches that are hidden."""
CELLS = (2, 4, 8)
"""Cells a side that are mixed up, beside the patches themselves."""
PATCH_SIDE, PLACES = 2, 5
"""A replaced cell has so many patches a side and is tried at so many places."""
WORST = 5
"""Severity of the corruption in a cell."""
RADII = (1, 4)
"""Largest change of a value by an attack on the whole image, of 255."""
ATTACKS: dict[SuiteName, int] = {"patch": 20, "adversarial": 10}
"""The suites that make attacks, and how many steps each takes."""
PLAIN = 1.0
"""The temperature of attention that changes nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clean:
    """A batch before it is perturbed, and what perturbations may know of it.

    Attributes:
        images_B3HW: in [0, 1], in whole patches.
        names: of the images: random numbers follow from them.
        present_BK, known_BK: bool, the tags and which of them are known, on the host.
        saliency_Bhw: the strongest class map of the plain network at each patch.
    """

    images_B3HW: Tensor
    names: tuple[str, ...]
    present_BK: Tensor
    known_BK: Tensor
    saliency_Bhw: Tensor


@dataclass(frozen=True, slots=True)
class Changed:
    """A perturbed batch.

    Attributes:
        images_B3HW: in [0, 1].
        part_Bhw: bool, the patches that were replaced; None where the whole image was changed.
        restore: puts maps (B, C, h, w) of the perturbed images in the order of the clean ones.
    """

    images_B3HW: Tensor
    part_Bhw: Tensor | None = None
    restore: Callable[[Tensor], Tensor] = lambda maps: maps


@dataclass(frozen=True, slots=True)
class Condition:
    """One perturbation: its kind, its level, and the function that makes it of a batch."""

    kind: str
    level: str
    change: Callable[[Network, Clean], Changed]
    is_attack: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What is scored together.

    Attributes:
        kind, level: of the condition; "clean" has no level.
        temperature: of the attention of the network that reads the images.
        made_with: that of the network which an attack was made against.
        is_attack: whether the condition is one.
    """

    kind: str
    level: str
    temperature: float = PLAIN
    made_with: float = PLAIN
    is_attack: bool = False

    @property
    def threat(self) -> str:
        """Of an attack on a network with another temperature: "transfer" from the plain one, or "adaptive"."""
        if not self.is_attack or self.temperature == PLAIN:
            return ""
        return "adaptive" if self.made_with == self.temperature else "transfer"


CLEAN = Condition("clean", "", lambda network, clean: Changed(clean.images_B3HW))


def readings(condition: Condition, temperatures: Sequence[float]) -> list[tuple[float, list[float]]]:
    """The temperatures that a condition is made against, each with those that it is then read with.

    What does not depend on the network is made once. An attack on the plain network is read with all temperatures
    (transfer); one on the network with a temperature is read with that alone (adaptive).
    """
    made = [(PLAIN, list(temperatures))]
    if condition.is_attack:
        made += [(value, [value]) for value in temperatures if value != PLAIN]
    return made


def rows_of(conditions: Sequence[Condition], temperatures: Sequence[float]) -> list[Row]:
    """The rows of a suite, in the order in which they are measured; those of repeated conditions repeat."""
    return [
        Row(condition.kind, condition.level, read, made, condition.is_attack)
        for condition in conditions
        for made, reads in readings(condition, temperatures)
        for read in reads
    ]


def corruption() -> list[Condition]:
    """Noise, blur, weather and compression at severities 1, 3 and 5, and two views without texture."""
    conditions = [
        Condition(kind, str(severity), partial(_corrupted, kind=kind, severity=severity))
        for kind in CORRUPTIONS
        for severity in SEVERITIES
    ]
    views = [Condition(kind, "no texture", partial(_corrupted, kind=kind, severity=1)) for kind in TEXTURE_FREE]
    return conditions + views


def occlusion() -> list[Condition]:
    """Shares of the patches are hidden: at random, the most salient first, or the least salient."""
    return [
        Condition(f"{order} hidden", f"{share:.0%}", partial(_occluded, share=share, order=order))
        for order in ORDERS
        for share in HIDDEN_SHARES
    ]


def shuffle() -> list[Condition]:
    """Cells are mixed up, from halves of each side to single patches."""
    names = [(f"{cells} x {cells}", cells) for cells in CELLS] + [("patches", 0)]
    return [Condition("cells mixed", name, partial(_shuffled, cells=cells)) for name, cells in names]


def patch(steps: int) -> list[Condition]:
    """A cell is corrupted, replaced by noise, or attacked from noise on in ``steps`` steps; all at the same places."""
    ways: dict[str, Callable[..., Changed]] = {
        "corrupted": _corrupted_cell,
        "noise": partial(_attacked_cell, steps=0),
        "adversarial": partial(_attacked_cell, steps=steps),
    }
    return [
        Condition("cell", way, partial(change, place=place), is_attack=way == "adversarial")
        for way, change in ways.items()
        for place in range(PLACES)
    ]


def adversarial(steps: int, *, masks: bool) -> list[Condition]:
    """Noise within a radius, and attacks from it on in ``steps`` steps: on the tags and, with ``masks``, on these."""
    ways: list[tuple[str, Callable[..., Changed], int]] = [
        ("noise", _attacked_tags, 0),
        ("attack on tags", _attacked_tags, steps),
    ]
    if masks:
        ways.append(("attack on masks", _attacked_masks, steps))
    return [
        Condition(kind, f"{radius}/255", partial(change, radius=radius / 255, steps=number), is_attack=number > 0)
        for kind, change, number in ways
        for radius in RADII
    ]


SUITES: dict[SuiteName, Callable[[], list[Condition]]] = {
    "corruption": corruption,
    "occlusion": occlusion,
    "shuffle": shuffle,
}
"""Those that make no attack."""


def conditions_of(suite: SuiteName, *, steps: int | None = None, masks: bool = False) -> list[Condition]:
    """Clean images, then the conditions of a suite.

    Args:
        suite: its name.
        steps: of its attacks; None takes those of ``ATTACKS``.
        masks: whether the network has a decoder, whose masks can be attacked.
    """
    if suite not in ATTACKS:
        return [CLEAN, *SUITES[suite]()]
    steps = ATTACKS[suite] if steps is None else steps
    return [CLEAN, *(patch(steps) if suite == "patch" else adversarial(steps, masks=masks))]


def _corrupted(network: Network, clean: Clean, kind: str, severity: int) -> Changed:
    pictures = clean.images_B3HW.permute(0, 2, 3, 1).cpu().numpy()
    changed = [corrupt(one, kind, severity, name) for one, name in zip(pictures, clean.names, strict=True)]
    images_B3HW = torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).contiguous()
    return Changed(images_B3HW.to(clean.images_B3HW.device))


def _occluded(network: Network, clean: Clean, share: float, order: str) -> Changed:
    hidden_Bhw = hidden_patches(clean.saliency_Bhw, share, order, clean.names)
    return Changed(fill(clean.images_B3HW, hidden_Bhw), hidden_Bhw)


def _shuffled(network: Network, clean: Clean, cells: int) -> Changed:
    grid = (clean.saliency_Bhw.shape[1], clean.saliency_Bhw.shape[2])
    size = (clean.images_B3HW.shape[2], clean.images_B3HW.shape[3])
    mixed = Shuffle((cells, cells) if cells else grid, clean.names)
    return Changed(mixed.mix(clean.images_B3HW), None, partial(mixed.restore, size=size))


def _cell(clean: Clean, place: int) -> Tensor:
    """The cell of each image at one of its places, as a choice of patches (B, h, w)."""
    grid = (clean.saliency_Bhw.shape[1], clean.saliency_Bhw.shape[2])
    places = [cell_places(grid, PATCH_SIDE, PLACES, name)[place] for name in clean.names]
    return cells_at(np.stack(places), PATCH_SIDE, grid)


def _corrupted_cell(network: Network, clean: Clean, place: int) -> Changed:
    """The image is corrupted as a whole, by a kind that its name draws, and one cell of it is taken over."""
    kinds = [str(random_of(name, "cell", place).choice([*CORRUPTIONS])) for name in clean.names]
    pictures = clean.images_B3HW.permute(0, 2, 3, 1).cpu().numpy()
    changed = [corrupt(one, kind, WORST, name) for one, kind, name in zip(pictures, kinds, clean.names, strict=True)]
    corrupted_B3HW = torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).to(clean.images_B3HW.device)
    cell_Bhw = _cell(clean, place)
    inside = pixels(cell_Bhw, clean.images_B3HW)
    return Changed(torch.where(inside, corrupted_B3HW, clean.images_B3HW), cell_Bhw)


def _attacked_cell(network: Network, clean: Clean, place: int, steps: int) -> Changed:
    cell_Bhw = _cell(clean, place)
    inside = pixels(cell_Bhw, clean.images_B3HW)
    loss = tag_loss(network, clean.present_BK, clean.known_BK)
    return Changed(patch_attack(network, clean.images_B3HW, inside, loss, clean.names, steps), cell_Bhw)


def _attacked_tags(network: Network, clean: Clean, radius: float, steps: int) -> Changed:
    loss = tag_loss(network, clean.present_BK, clean.known_BK)
    return Changed(bounded_attack(network, clean.images_B3HW, radius, loss, clean.names, steps))


def _attacked_masks(network: Network, clean: Clean, radius: float, steps: int) -> Changed:
    with torch.no_grad():
        clean_BHW = network.scores_on_grid(clean.images_B3HW).argmax(dim=1)
    loss = mask_loss(network, clean_BHW, steps)
    return Changed(bounded_attack(network, clean.images_B3HW, radius, loss, clean.names, steps))
