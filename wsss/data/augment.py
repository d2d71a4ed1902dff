"""Training samples: one image, its label map and its saliency map, cropped and flipped together; colours jittered.

The randomness of a sample depends on the seed, the epoch and the image alone, so that runs repeat for any number
of loader workers and resume in the middle of an epoch.

Shape suffixes: H x W pixels, S side of the crop, K classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from wsss.config import AugmentSection
from wsss.data.geo import TIFF_SUFFIXES, has_rasterio
from wsss.data.layers import read_layer
from wsss.data.loading import reading
from wsss.data.masks import IGNORE_INDEX
from wsss.data.records import Record, TaggedSet
from wsss.errors import DataError

Key = tuple[int, int]
"""(epoch, index of the record)."""


class TrainingImages(Dataset[dict[str, Tensor]]):
    """Augmented samples of a tagged set.

    Args:
        tagged: the records.
        augment: the recipe.
        seed: of the run.
        labels: a folder of label maps NAME.png to train on, or None.
        saliency: a folder of 8-bit saliency maps NAME.png, or None.
        corrected: a folder of masks NAME.png of people, and the names of the images that have one; or None.
        guide: a folder of label maps NAME.png that guide attention, or None.
    """

    def __init__(
        self,
        tagged: TaggedSet,
        augment: AugmentSection,
        *,
        seed: int,
        labels: Path | None = None,
        saliency: Path | None = None,
        corrected: tuple[Path, Collection[str]] | None = None,
        guide: Path | None = None,
    ) -> None:
        self.tagged = tagged
        self.seed = seed
        self.labels = labels
        self.saliency = saliency
        self.guide = guide
        self.corrected = None if corrected is None else (corrected[0], frozenset(corrected[1]))
        self.may_lack_data = has_rasterio() and any(
            path.lower().endswith(TIFF_SUFFIXES) for path in tagged.columns.paths
        )
        self.place = v2.Compose(
            [
                v2.RandomResizedCrop(augment.size, scale=(augment.min_area, 1.0), antialias=True),
                v2.RandomHorizontalFlip(augment.flip),
            ]
        )
        jitter = augment.jitter
        self.colour = v2.ColorJitter(jitter, jitter, jitter, jitter / 4) if jitter else v2.Identity()

    def __len__(self) -> int:
        return len(self.tagged)

    def name(self, index: int) -> str:
        """Of the image of an index."""
        return self.tagged.records[index].name

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """Image (3, S, S) uint8, present (K,) bool and, where asked for, label, saliency and guide, each (S, S) uint8.

        With masks of people also corrected (S, S) uint8 and is_corrected () bool, False where the image has none.
        Of a set with TIFF files also valid (S, S) uint8, 0 where a picture has no data.
        """
        epoch, index = key
        record = self.tagged.records[index]
        reading(record.name)
        image = tv_tensors.Image(torch.from_numpy(record.decode()).permute(2, 0, 1))
        layers = {"image": image}
        for name, folder in (("label", self.labels), ("saliency", self.saliency), ("guide", self.guide)):
            if folder is not None:
                layers[name] = tv_tensors.Mask(torch.from_numpy(read_layer(folder, record, tuple(image.shape[1:]))))
        if self.corrected is not None:
            layers["corrected"] = tv_tensors.Mask(self._drawn(record, tuple(image.shape[1:])))
        if self.may_lack_data:
            valid_HW = record.valid()
            shown_HW = np.ones(image.shape[1:], np.uint8) if valid_HW is None else valid_HW.astype(np.uint8)
            layers["valid"] = tv_tensors.Mask(torch.from_numpy(shown_HW))
        if self.labels is not None:
            _check_classes(layers["label"], len(self.tagged.classes), self.labels / f"{record.name}.png")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mix(self.seed, epoch, index))  # the CPU's alone
            layers = self.place(layers)
            layers["image"] = self.colour(layers["image"])
        sample = {name: layer.as_subclass(torch.Tensor).contiguous() for name, layer in layers.items()}
        if self.corrected is not None:
            sample["is_corrected"] = torch.tensor(record.name in self.corrected[1])
        sample["present"] = torch.from_numpy(self.tagged.present(record))
        if self.tagged.has_unknown():
            sample["known"] = torch.from_numpy(self.tagged.known(record))
        return sample

    def _drawn(self, record: Record, size: tuple[int, ...]) -> Tensor:
        """The mask of a person, (H, W) uint8; ignored pixels where the image has none."""
        assert self.corrected is not None
        folder, names = self.corrected
        if record.name not in names:
            return torch.full(size, IGNORE_INDEX, dtype=torch.uint8)
        return torch.from_numpy(read_layer(folder, record, size))


class StepBatches(Sampler[list[Key]]):
    """The keys of each batch from one step to another; epoch e is a permutation drawn from the seed and e.

    Args:
        length: records in the set.
        batch_size: images a step; images at the end of an epoch that fill no batch are left out of it.
        start: first step.
        stop: one after the last.
        seed: of the run.

    Attributes:
        part, parts: which rows of each batch are given: the part of this number, from 0, of so many equal ones.
    """

    def __init__(self, length: int, batch_size: int, start: int, stop: int, seed: int) -> None:
        self.part, self.parts = 0, 1
        self.length = length
        self.batch_size = min(batch_size, length)
        self.start = start
        self.stop = stop
        self.seed = seed

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.length // self.batch_size

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        order: list[int] = []
        current = -1
        for step in range(self.start, self.stop):
            epoch, offset = divmod(step, self.steps_per_epoch)
            if epoch != current:
                order = np.random.default_rng([self.seed, epoch]).permutation(self.length).tolist()
                current = epoch
            rows = self.batch_size // self.parts
            first = offset * self.batch_size + self.part * rows
            yield [(epoch, index) for index in order[first : first + rows]]


def mix(*numbers: int) -> int:
    """One 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _check_classes(label_HW: Tensor, num_classes: int, path: Path) -> None:
    largest = int(label_HW.masked_fill(label_HW == IGNORE_INDEX, 0).max())
    if largest > num_classes:
        raise DataError(
            f"{path} holds class {largest}; the data set has 1 to {num_classes}, 0 background and {IGNORE_INDEX}",
            f"make {path.parent} again for these classes",
        )
