"""``wsss train-cls --extend``: a classifier learns new classes, and is kept from forgetting the old ones.

The old network is the teacher and stays as it is. A step sees new images, whose tags name new classes, and images of a
memory (`wsss.data.memory`). A class that is not new is unknown in a new image unless it is tagged there: nobody looked
for it. The teacher's answer then takes the place of the tag. What the attention of each block looks at is held to the
teacher's (attention distillation, arXiv 2203.13167; pooled as in arXiv 2004.13513), without making an N x N matrix.

Shape suffixes: B images, K classes, A heads, N tokens, D channels a head, U = 2 A N sums of a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.config import AugmentSection, Config
from wsss.data.augment import Key, TrainingImages
from wsss.data.memory import MEMORY, Limits, is_memory, open_memory, with_classes, write_memory
from wsss.data.records import TaggedSet, data_digest
from wsss.data.splits import open_to_label, open_training
from wsss.errors import DataError, UsageError
from wsss.maps.tape import AttentionTape
from wsss.models.checkpoint import file_hash, find_checkpoint
from wsss.models.network import Network
from wsss.reporting import Reporter, first_few
from wsss.sections import EditSection
from wsss.training.classify import ClassifyStep
from wsss.training.head import Mode, mode_of
from wsss.training.initial import Initial
from wsss.training.losses import LEAST
from wsss.training.step import Batch

SMALL = 0.1
"""Factor of the new rows of the head as they are drawn; their biases are 0."""
Distil = Literal["asymmetric", "symmetric", "none"]


@dataclass(frozen=True, slots=True)
class Extended(Initial):
    """The run whose classifier learns more classes: the teacher."""

    option: ClassVar[str] = "--extend"

    def open_training(self, config: Config, reporter: Reporter) -> tuple[TaggedSet, TaggedSet | None]:
        """The splits of a data folder with the classes of the run and then its own.

        Old classes are unknown in training images that are not tagged with them. In the validation split those are
        unknown that the data folder does not list.

        Raises:
            UsageError: the data folder has no new class.
            DataError: the data are at fault.
        """
        train, val = open_training(config, reporter)
        old = self.network.classes
        new = tuple(name for name in train.classes if name not in old)
        if not new:
            raise UsageError(
                f"{train.root} has no class that {self.run} does not know ({first_few([*old])})",
                f"wsss train-cls --init {self.run} --data {train.root} -o RUN  # goes on with the same classes",
            )
        reporter.say(f"new: {first_few([*new])}; known before: {first_few([*old])}")
        classes = (*old, *new)
        foreign = [name for name in old if name not in train.classes]
        return (
            with_classes(train, classes, only_present=old),
            None if val is None else with_classes(val, classes, unknown=foreign),
        )

    def give(self, network: Network, attention: tuple[EditSection, ...]) -> None:
        """Copy all of the network of the run into one with more classes; see `Initial.give`.

        The rows of the old classes in the head are copied bit for bit, those of the new ones start small.
        """
        drawn = network.readout.state_dict()
        grown = {name: value * SMALL if value.ndim > 1 else torch.zeros_like(value) for name, value in drawn.items()}
        kept = self.network.readout.state_dict()
        for name, value in kept.items():
            if grown[name].shape == value.shape:
                grown[name] = value
            else:
                grown[name][: len(value)] = value
        self.give_trunk(network, attention)
        network.readout.load_state_dict(grown)

    def task(self, memory: TaggedSet | None) -> dict[str, Any]:
        """What a checkpoint says of the extension, to resume it."""
        checkpoint = find_checkpoint(self.run)
        return {
            "extend": str(checkpoint.absolute()),
            "teacher_sha256": file_hash(checkpoint),
            "memory_sha256": None if memory is None else data_digest(memory),
        }

    def write_memory(
        self, run: Path, train: TaggedSet, config: Config, limits: Limits | None, reporter: Reporter
    ) -> None:
        """Write the memory of a new run: images of the old run's memory, or else of its data, and new ones.

        Args:
            run: the new run.
            train: new images, with all classes.
            config: of the new run.
            limits: of the memory; None keeps none.
            reporter: gets what it holds.

        Raises:
            DataError: the old run has neither a memory nor data that are still there.
        """
        if limits is None:
            return
        folder = (self.run.parent if self.run.is_file() else self.run) / MEMORY
        if is_memory(folder):
            before = open_memory(folder, train.classes)
        else:
            root = self.config.data.root
            if root is None or not root.is_dir():
                raise DataError(
                    f"{self.run} has no memory, and the data that it learnt from are not there ({root})",
                    "put them back, or --memory 0  # no image of the old classes",
                )
            known = open_to_label(self.config, reporter, self.network.classes)
            before = with_classes(known, train.classes, unknown=train.classes[len(self.network.classes) :])
        write_memory(run / MEMORY, (before, train), limits, config.run.seed)
        reporter.say(f"memory {run / MEMORY}: {open_memory(run / MEMORY, train.classes).summary()}")


def teacher_of(task: Mapping[str, Any], run: Path) -> Extended | None:
    """The teacher of a run that is resumed; None where it has none.

    Raises:
        DataError: it has gone or was changed.
    """
    if not task.get("extend"):
        return None
    path = Path(task["extend"])
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint; {run} learns from it what it knew before", "put it back there")
    if file_hash(path) != task["teacher_sha256"]:
        raise DataError(
            f"{path} is not the checkpoint that {run} began with",
            f"put that back, or train anew: --extend {path.parent}",
        )
    return Extended.of(path)


def memory_of(task: Mapping[str, Any], run: Path, network: Network) -> TaggedSet | None:
    """The memory of a run that is resumed; None where it has none.

    Raises:
        DataError: it has gone or was changed.
    """
    if not task.get("memory_sha256"):
        return None
    folder = run / MEMORY
    if not is_memory(folder):
        raise DataError(f"{folder} has gone; {run} learns from it", "put it back, or train anew, with another -o")
    memory = open_memory(folder, network.classes)
    if data_digest(memory) != task["memory_sha256"]:
        raise DataError(f"{folder} was changed; {run} began with other images", "put it back as it was, or train anew")
    return memory


class Replayed(TrainingImages):
    """New images, and after them as many of a memory, which take turns from one epoch to the next.

    So a step sees new images and old ones in equal shares on average, however large the memory is.
    """

    def __init__(self, tagged: TaggedSet, memory: TaggedSet | None, augment: AugmentSection, *, seed: int) -> None:
        super().__init__(tagged, augment, seed=seed)
        self.memory = None if memory is None else TrainingImages(memory, augment, seed=seed)

    def __len__(self) -> int:
        return len(self.tagged) * (1 if self.memory is None else 2)

    def __getitem__(self, key: Key) -> dict[str, Tensor]:
        """Image (3, S, S) uint8, present (K,) and known (K,) bool."""
        (epoch, index), images = key, len(self.tagged)
        if index < images or self.memory is None:
            return _with_known(super().__getitem__(key))
        turn = epoch * images + index - images
        return _with_known(self.memory[turn // len(self.memory), turn % len(self.memory)])

    def name(self, index: int) -> str:
        """Of the image of an index; of the memory it is not told which."""
        return self.tagged.records[index].name if index < len(self.tagged) else MEMORY


def _with_known(sample: dict[str, Tensor]) -> dict[str, Tensor]:
    present_K = sample["present"]
    known_K = sample.get("known", torch.ones_like(present_K))
    return {"image": sample["image"], "present": present_K, "known": known_K}


class ExtendStep(ClassifyStep):
    """A step with a teacher: see the module.

    Args:
        network: is trained.
        teacher: knows the first classes of the network; stays as it is.
        config: the settings.
        whole, each, mode: see `ClassifyStep`.
    """

    def __init__(
        self, network: Network, teacher: Network, config: Config, whole: int, each: int = 1, mode: Mode = "all"
    ) -> None:
        super().__init__(network, config, whole, each, mode)
        self.teacher = teacher.requires_grad_(False)
        self.distil: Distil = config.classify.distil if config.classify.weight_distil else "none"

    def train(self, mode: bool = True) -> ExtendStep:
        """All but the teacher, which skips no branches."""
        super().train(mode)
        self.teacher.eval()
        return self

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """How many answers there are: of the tags, and of the teacher where they are unknown."""
        return {"known_count": (batch["known"].sum() + self._asked(batch).sum())}

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """The losses of the tags and of the teacher's answers, divided by the number of both, and of the attention."""
        images_B3HW = batch["image"]
        with torch.no_grad():
            taught_BK, old = classify_pooled(self.teacher, images_B3HW, self.distil != "none")
        logits_BK, new = classify_pooled(self.network, images_B3HW, self.distil != "none")
        count = batch["known_count"] if "known_count" in batch else self.counts(batch)["known_count"]
        present_BK = batch["present"].to(logits_BK.device, non_blocking=True)
        terms = {
            "classification": _cross_entropy(logits_BK, present_BK.float(), batch["known"], count),
            "teacher": _cross_entropy(
                logits_BK[:, : taught_BK.shape[1]], taught_BK.float().sigmoid(), self._asked(batch), count
            ),
        }
        if self.distil != "none":
            drifts = [drift(*pair, self.distil) for pair in zip(old, new, strict=True)]
            terms["distillation"] = self.classify.weight_distil * torch.stack(drifts).mean()
        return terms

    def _asked(self, batch: Batch) -> Tensor:
        """(B, K_old) bool: which old classes the teacher answers for."""
        return ~batch["known"][:, : len(self.teacher.classes)]


def _cross_entropy(logits_BK: Tensor, wanted_BK: Tensor, used_BK: Tensor, count: Tensor) -> Tensor:
    """Sum over the used answers divided by a number of answers; a float32 scalar."""
    loss_BK = F.binary_cross_entropy_with_logits(logits_BK.float(), wanted_BK, reduction="none")
    return loss_BK.masked_fill(~used_BK, 0.0).sum() / count.clamp(min=LEAST)


def classify_pooled(network: Network, images_B3HW: Tensor, pooled: bool) -> tuple[Tensor, list[Tensor]]:
    """(B, K) class logits, and for each block the sums of `pooled_logits` where they are asked for."""
    if not pooled:
        return network.classify(images_B3HW), []
    blocks = network.backbone.blocks
    with AttentionTape(blocks, len(blocks), name=network.backbone.name) as tape:
        logits_BK = network.classify(images_B3HW)
    return logits_BK, [pooled_logits(call.query_BAND, call.key_BAND) for call in tape.attentions]


def pooled_logits(query_BAND: Tensor, key_BAND: Tensor) -> Tensor:
    """(B, U) float32: for each head the logits of attention, summed over the queries, then over the keys.

    The sum over i of q_i k_j is the product of the sum of the queries with k_j, so no N x N matrix is made. The scale
    of the logits, which `drift` does not see, is left out; so are biases.
    """
    with torch.autocast(query_BAND.device.type, enabled=False):
        query_BAND, key_BAND = query_BAND.float(), key_BAND.float()
        over_queries_BAN = (key_BAND @ query_BAND.sum(dim=2)[..., None])[..., 0]
        over_keys_BAN = (query_BAND @ key_BAND.sum(dim=2)[..., None])[..., 0]
        return torch.cat([over_queries_BAN, over_keys_BAN], dim=-1).flatten(1)


def drift(old_BU: Tensor, new_BU: Tensor, kind: Literal["asymmetric", "symmetric"]) -> Tensor:
    """How far the attention of a block has moved: vectors are divided by their lengths, then subtracted.

    Args:
        old_BU: sums of the teacher.
        new_BU: of the network that learns.
        kind: asymmetric counts what was lost alone, ReLU(old - new); symmetric counts every difference.

    Returns:
        The length of the difference, averaged over the images: a scalar in [0, 2].
    """
    lost_BU = F.normalize(old_BU, dim=1) - F.normalize(new_BU, dim=1)
    if kind == "asymmetric":
        lost_BU = lost_BU.relu()
    length_B: Tensor = torch.linalg.vector_norm(lost_BU, dim=1)
    return length_B.mean()


def check_extension(config: Config, start: Extended, train: TaggedSet) -> None:
    """Refuse settings with which an extension cannot learn.

    Raises:
        UsageError: there is no attention to distil, another loss is asked for, or the head alone would be trained.
    """
    section = config.classify
    if not start.network.backbone.has_attention and section.distil != "none" and section.weight_distil:
        raise UsageError(f"{start.run}: {config.model.backbone} has no attention to distil", "--distil none")
    for name in ("weight_gain", "adversarial"):
        if getattr(section, name):
            raise UsageError(f"classify.{name} and --extend exclude each other", f"leave out classify.{name}")
    if mode_of(config, train) == "head":
        raise UsageError(
            "the head alone would be trained, which --extend does not do",
            "--finetune top  # where every image has the new class: add images without it",
        )
