"""Head first: the readout is fitted on features of the given backbone, computed once and kept in memory.

The number of steps is chosen on a held-out tenth of the tags; then the readout is fitted anew on all of them. All that
is random follows from the seed, so a stopped fit is made again with the same result.

Shape suffixes: N images, P patches kept of each view, C channels, B images of a step, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsss.config import Config
from wsss.data.lessons import FEW_STEPS, teaches_nothing
from wsss.data.records import TaggedSet
from wsss.data.scaled import ScaledBatch, ScaledImages, load_batches
from wsss.errors import UsageError
from wsss.inference.settings import batch_pixels, validation_side
from wsss.machine import autocast, num_workers
from wsss.models.backbone import Features
from wsss.models.network import Network
from wsss.models.readout import Readout
from wsss.training.losses import classification_loss
from wsss.training.ranks import ALONE, Ranks

Mode = Literal["head", "top", "all"]
"""What is trained: the head alone, the head and then the upper half of the blocks, or all weights from the start."""
PATCHES = 49
"""Patches kept of each view, drawn at random: their mean is that of all patches on average, at a quarter the memory."""
HEAD_LR = 1e-3
MOST_STEPS, EVERY, PATIENCE = 1000, 50, 4
"""Steps of the head at most; the held-out loss is computed every EVERY, PATIENCE times without gain end the search."""
BATCH = 32
LAYER_DECAY = 0.7
"""Learning rate of a block relative to that of the block above it."""


def mode_of(config: Config, train: TaggedSet) -> Mode:
    """What is trained: ``classify.finetune`` with "auto" decided, and "head" where the tags teach nothing.

    Raises:
        UsageError: the head alone is trained, and there are edits of attention to learn.

    Where every class is in every image, the loss falls whatever the tokens show: five epochs of 121 photos of dogs made
    the labels of the method "objects" worse by 40 points of mIoU (LOG.md).
    """
    mode = config.classify.finetune
    if teaches_nothing(train):
        mode = "head"
    elif mode == "auto":
        mode = "all" if config.model.weights == "none" else "top"
    if mode == "head" and config.model.attention:
        names = ", ".join(section.name for section in config.model.attention)
        raise UsageError(
            f"model.attention: {names} would learn nothing, since the head alone is trained",
            "--finetune top  # where every class is in every image: leave out model.attention",
        )
    return mode


def freeze_below(network: Network, mode: Mode) -> None:
    """Freeze what ``mode`` does not train of the backbone: all of it, or its lower half with the embeddings."""
    if mode == "all":
        return
    network.backbone.requires_grad_(False)
    if mode == "top":
        backbone = network.backbone
        for module in (*backbone.blocks[backbone.depth // 2 :], *backbone.norms.values()):
            module.requires_grad_(True)


def steps_after_head(whole: int, each: int, mode: Mode) -> int:
    """Steps after the fit of the head: none, those of the upper blocks, or ``whole``, those of all epochs.

    They make whole epochs of ``each`` steps, since a training is validated at the end of one.
    """
    top = -(-max(FEW_STEPS, whole // 2) // each) * each
    return {"head": 0, "top": top}.get(mode, whole)


def held_out(present_NK: NDArray[np.bool_], seed: int) -> NDArray[np.bool_]:
    """(N,) bool: about a tenth of the images, and of each class at least one image where it has two; none of one image.

    Classes take turns from the rarest on, so that an image with several tags counts for each of them.
    """
    order = np.random.default_rng([seed, 10]).permutation(len(present_NK))
    chosen_N = np.zeros(len(present_NK), bool)
    groups = [*present_NK.T[np.argsort(present_NK.sum(0), kind="stable")], ~present_NK.any(1)]
    for has_N in groups:
        wanted = max(round(has_N.sum() / 10), min(1, has_N.sum() // 2)) - (chosen_N & has_N).sum()
        chosen_N[[i for i in order if has_N[i] and not chosen_N[i]][: max(0, wanted)]] = True
    if not chosen_N.any():
        chosen_N[order[: len(order) // 2][:1]] = True
    return chosen_N


@dataclass(frozen=True, slots=True)
class Cached:
    """Features of all images with two views each, the image and its mirror image.

    Attributes:
        patches_N2PC: float16.
        class_N2C: float32, or None where the backbone has no class token.
        present_NK, known_NK: the tags, and which of them are known.
    """

    patches_N2PC: Tensor
    class_N2C: Tensor | None
    present_NK: Tensor
    known_NK: Tensor

    def loss(self, readout: Readout, chosen_B: Tensor, view: int) -> Tensor:
        """Classification loss of some images in one view; a scalar."""
        device = next(readout.parameters()).device
        class_BC = None if self.class_N2C is None else self.class_N2C[chosen_B, view].to(device)
        patches_BPC = self.patches_N2PC[chosen_B, view].to(device).float()
        logits_BK = readout(Features(patches_BPC, class_BC, (1, patches_BPC.shape[1]), []))
        return classification_loss(logits_BK, self.present_NK[chosen_B], self.known_NK[chosen_B])


def fit_head(
    network: Network,
    train: TaggedSet,
    config: Config,
    device: torch.device,
    between_batches: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Fit the readout of a network to the tags of a set; the backbone stays as it is.

    Several processes compute the features together; rank 0 keeps them and fits.

    Returns:
        what was chosen: images held out, the steps and the held-out loss.
    """
    cached = cache_features(network, train, config, device, between_batches, ranks)
    found, weights = ranks.lead(lambda: _chosen_fit(network, cached, config, between_batches))
    network.readout.load_state_dict(weights)
    return found


def _chosen_fit(
    network: Network, cached: Cached, config: Config, between_batches: Callable[[], None]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `fit_head` returns, and the weights of the readout on the CPU."""
    held_N = torch.from_numpy(held_out(cached.present_NK.numpy(), config.run.seed))
    everything = torch.arange(len(held_N))
    start = deepcopy(network.readout)
    losses: list[float] = []
    for step in _fit(network.readout, cached, everything[~held_N], config, MOST_STEPS if held_N.any() else 0):
        if step % EVERY == 0:
            between_batches()
            with torch.no_grad():
                losses.append(float(sum(cached.loss(network.readout, everything[held_N], view) for view in (0, 1))) / 2)
            if len(losses) - int(np.argmin(losses)) > PATIENCE:
                break
    best = (int(np.argmin(losses)) + 1) * EVERY if losses else FEW_STEPS
    network.readout.load_state_dict(start.state_dict())
    for _ in _fit(network.readout, cached, everything, config, best):
        pass
    found = {"held_out": int(held_N.sum()), "steps": best, "held_out_loss": min(losses, default=float("nan"))}
    return found, {name: value.cpu() for name, value in network.readout.state_dict().items()}


def _fit(readout: Readout, cached: Cached, images: Tensor, config: Config, steps: int) -> Any:
    """Train a readout on some images; yields the number of steps after each."""
    optimizer = torch.optim.AdamW(readout.parameters(), lr=HEAD_LR, weight_decay=config.classify.weight_decay)
    random = torch.Generator().manual_seed(config.run.seed)
    for step in range(1, steps + 1):
        chosen_B = images[torch.randint(len(images), (min(BATCH, len(images)),), generator=random)]
        optimizer.zero_grad()
        cached.loss(readout, chosen_B, step % 2).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield step


@torch.no_grad()
def cache_features(
    network: Network,
    train: TaggedSet,
    config: Config,
    device: torch.device,
    between_batches: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
) -> Cached:
    """The features of all images at the side of the validation, each with its mirror image; kept in rank 0 alone."""
    network.eval()
    sides = (validation_side(config, config.classify),)
    images = ScaledImages(train.records, sides, network.backbone.stride, batch_pixels(config.run, device))
    random = torch.Generator().manual_seed(config.run.seed)
    records = [record for batch in images.batches for record in batch]
    batches, images.batches = images.batches, images.batches[ranks.share]
    read = load_batches(images, num_workers(config.run), device)
    parts: list[tuple[Tensor, Tensor | None]] = []
    for first in range(0, len(batches), ranks.world):  # a batch for each process
        own = ranks.agree(lambda: _views(network, read, config, device, between_batches))
        counts = ranks.gather(own[0].patches_BNC.shape[1] if own else 0)[: len(batches) - first]
        kept = [torch.randint(count, (PATCHES,), generator=random) for count in counts]
        mine = _kept(own, kept[ranks.rank].to(device)) if own else None
        parts += ranks.collect([mine] if mine else [])
    tokens = [token_B2C for _, token_B2C in parts if token_B2C is not None]
    return Cached(
        torch.cat([patches_B2PC for patches_B2PC, _ in parts]) if parts else torch.empty(0),
        torch.cat(tokens) if tokens else None,
        torch.from_numpy(np.stack([train.present(record) for record in records])),
        torch.from_numpy(np.stack([train.known(record) for record in records])),
    )


def _views(
    network: Network,
    read: Iterator[ScaledBatch],
    config: Config,
    device: torch.device,
    between_batches: Callable[[], None],
) -> list[Features]:
    """Features of the next batch and of its mirror image; none where there is no further batch."""
    between_batches()
    batch = next(read, None)
    if batch is None:
        return []
    (scaled_B3HW,) = batch.at_scales(device)
    with autocast(config.run, device):
        return [network.features(view_B3HW) for view_B3HW in (scaled_B3HW, scaled_B3HW.flip(3))]


def _kept(views: Sequence[Features], kept_P: Tensor) -> tuple[Tensor, Tensor | None]:
    """Some patches of both views, (B, 2, P, C) float16, and their class tokens (B, 2, C) float32, on the CPU."""
    patches_B2PC = torch.stack([view.patches_BNC[:, kept_P] for view in views], 1).half().cpu()
    tokens = [view.class_BC for view in views if view.class_BC is not None]
    return patches_B2PC, torch.stack(tokens, 1).float().cpu() if tokens else None
