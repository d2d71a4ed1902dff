"""Class maps of a batch: one forward, then one backward for the r-th present class of every image.

Images do not influence each other, so the logit of one class of each image may share a backward: the number of
backwards is the largest number of tags among images that pass together. Gradients are taken with respect to the
recorded attention outputs alone; no parameter gradient is computed.

Tags decide how many passes there are, so they are wanted on the host, which then never waits for the device. Tags that
lie on a device serve as well, but the host waits to read them.

Shape suffixes: B images, C = K + 1 label channels, K classes, R the largest number of tags, H x W pixels, h x w patch
grid, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.config import Coupling, MapsSection, Method, Rows
from wsss.errors import UsageError
from wsss.maps.affinity import spread
from wsss.maps.methods import BY_GRADIENT, CLASS_AGNOSTIC, Reading, gradcam
from wsss.maps.passes import image_groups, one_class_an_image
from wsss.maps.scores import normalise_scores
from wsss.maps.tape import AttentionTape
from wsss.models.averaged import LabelProbabilities, passes
from wsss.models.backbone import Features
from wsss.models.network import Network

BY_BACKWARD = {*BY_GRADIENT, "gradcam"}
"""Methods that ask for a backward a class."""

BY_ROWS = {"getam", "attention-gradient"}
"""Those that read the gradient of no other rows of attention than the explaining ones."""

HALF_SCALE = 1024.0
"""Under fp16 the logit is multiplied by this for the backward, so that small gradients do not vanish."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MapSettings:
    """How a class is read out; see ``wsss.maps.methods``.

    ``rows`` "auto" takes those of the tokens that feed the head. Maps are raised to the power ``gamma`` and then
    spread ``spread`` times by the affinity of the patches (``wsss.maps.affinity``); 1 and 0 leave them as published.
    """

    method: Method = "getam"
    coupling: Coupling = "released"
    start_layer: int = 0
    rows: Rows = "auto"
    gamma: float = 1.0
    spread: int = 0

    @classmethod
    def of(cls, section: MapsSection) -> MapSettings:
        """The settings of a config section."""
        return cls(**section.model_dump(include={field.name for field in fields(cls)}))


class Recorder:
    """Records a forward pass of the network for maps: the tape and, for grad-CAM, one layer's tokens.

    Use as a context around ``network.features``; then ``maps`` reads them, as often as the graph lives.
    """

    def __init__(self, network: Network, settings: MapSettings) -> None:
        if settings.start_layer >= network.backbone.depth:
            raise UsageError(
                f"start layer {settings.start_layer}: {network.backbone.name} has {network.backbone.depth} blocks",
                f"--start-layer {network.backbone.depth // 2}",
            )
        self.network = network
        self.settings = settings
        self.tape = AttentionTape(settings.start_layer, below=settings.spread > 0)
        self._stack = ExitStack()
        self._tokens_BNC: Tensor | None = None

    def __enter__(self) -> Recorder:
        if self.settings.method == "gradcam":
            handle = self.network.backbone.gradcam_layer.register_forward_hook(self._keep_tokens)
            self._stack.callback(handle.remove)
        if self.settings.method in BY_ROWS and self._fed == "token":
            block = self.network.backbone.vit.blocks[self.settings.start_layer]
            self._stack.callback(block.register_forward_hook(self.tape.narrow_start).remove)
        self._stack.enter_context(self.tape)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _keep_tokens(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self._tokens_BNC = output if output.requires_grad else output.detach().requires_grad_()
        return self._tokens_BNC

    def maps(self, features: Features, logits_BK: Tensor, present_BK: Tensor, *, keep_graph: bool = False) -> Tensor:
        """Class maps (B, K, h, w) float32, detached; those of absent classes are 0.

        Args:
            features: of the recorded pass.
            logits_BK: the readout of these features.
            present_BK: bool, the image-level labels, on the host.
            keep_graph: whether another backward follows through the same pass.
        """
        device = logits_BK.device
        rounds = [chosen_BK.to(device, non_blocking=True) for chosen_BK in one_class_an_image(present_BK)]
        maps_BKhw = logits_BK.new_zeros((*logits_BK.shape, *features.grid), dtype=torch.float32)
        if rounds:
            ranked_BRhw = self._spread(self._ranked(features, logits_BK, rounds, keep_graph))
            for chosen_BK, map_Bhw in zip(rounds, ranked_BRhw.unbind(dim=1), strict=True):
                maps_BKhw += chosen_BK[:, :, None, None] * map_Bhw[:, None]
        return maps_BKhw

    def _ranked(self, features: Features, logits_BK: Tensor, rounds: list[Tensor], keep_graph: bool) -> Tensor:
        """(B, R, h, w): the map of each image's r-th class; where it has none, anything finite."""
        method = self.settings.method
        if method == "cam":
            maps_BKhw = self.network.readout.cam(features).detach().float().relu()
            return torch.einsum("rbk,bkhw->brhw", torch.stack(rounds).float(), maps_BKhw)
        if method in CLASS_AGNOSTIC:
            row_BN = CLASS_AGNOSTIC[method](self._reading())
            return self._on_grid(row_BN, features.grid)[:, None].expand(-1, len(rounds), -1, -1)
        return self._by_gradient(features.grid, logits_BK, rounds, keep_graph)

    def _spread(self, maps_BRhw: Tensor) -> Tensor:
        settings = self.settings
        if settings.gamma != 1:
            maps_BRhw = maps_BRhw.clamp_min(0) ** settings.gamma
        if settings.spread == 0:
            return maps_BRhw
        prefix = self.network.backbone.num_prefix_tokens
        return spread(maps_BRhw.flatten(2), self.tape.attentions, prefix, settings.spread).reshape(maps_BRhw.shape)

    @property
    def _fed(self) -> Literal["token", "pool", "both"]:
        return self.network.readout.fed if self.settings.rows == "auto" else self.settings.rows

    def _reading(self) -> Reading:
        return Reading(
            attentions=self.tape.from_start,
            num_prefix_tokens=self.network.backbone.num_prefix_tokens,
            fed=self._fed,
            coupling=self.settings.coupling,
        )

    def _by_gradient(self, grid: tuple[int, int], logits_BK: Tensor, rounds: list[Tensor], keep_graph: bool) -> Tensor:
        reading = self._reading()
        scale = HALF_SCALE if logits_BK.dtype == torch.float16 else 1.0
        maps = []
        for number, chosen_BK in enumerate(rounds):
            score = (logits_BK * chosen_BK).sum() * scale
            retain = keep_graph or number + 1 < len(rounds)
            maps.append(self._on_grid(self._row(reading, score, scale, retain), grid))
        return torch.stack(maps, dim=1)

    def _row(self, reading: Reading, score: Tensor, scale: float, retain: bool) -> Tensor:
        if self.settings.method == "gradcam":
            tokens_BNC = self._tokens_BNC
            assert tokens_BNC is not None
            (gradient_BNC,) = torch.autograd.grad(score, tokens_BNC, retain_graph=retain)
            first = reading.num_prefix_tokens
            row_BN = gradcam(tokens_BNC[:, first:], gradient_BNC[:, first:].float() / scale)
            return F.pad(row_BN, (first, 0))
        outputs = [attention.output_BAND for attention in reading.attentions]
        gradients = list(torch.autograd.grad(score, outputs, retain_graph=retain))
        if scale != 1:
            gradients = [gradient.float() / scale for gradient in gradients]
        return BY_GRADIENT[self.settings.method](reading, gradients)

    def _on_grid(self, row_BN: Tensor, grid: tuple[int, int]) -> Tensor:
        return row_BN[:, self.network.backbone.num_prefix_tokens :].detach().reshape(-1, *grid)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient inside; their wishes come back after."""
    wishes = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, wish in wishes:
            parameter.requires_grad_(wish)


def class_maps(
    network: Network,
    images_B3HW: Tensor,
    present_BK: Tensor,
    *,
    method: Method = "getam",
    coupling: Coupling = "released",
    start_layer: int = 0,
    rows: Rows = "auto",
    gamma: float = 1.0,
    spread: int = 0,
) -> tuple[Tensor, Tensor]:
    """Class maps of a batch (GETAM, arXiv 2112.02841, section 3, or another method).

    Args:
        network: in the mode it should run in (``eval`` for labels).
        images_B3HW: in [0, 1], any size of at least one patch.
        present_BK: bool, on the host; maps are made for these classes.
        method: see ``wsss.maps.methods``.
        coupling: GETAM's.
        start_layer: first block that counts, from 0.
        rows: rows of the attention to read; "auto" follows the readout.
        gamma: power the maps are raised to; 1 leaves them as published.
        spread: steps of spreading by the affinity of the patches; 0 leaves the maps as published.

    Returns:
        logits (B, K) and maps (B, K, h, w) float32, at least 0, not normalised; maps of absent classes are 0.
    """
    settings = MapSettings(
        method=method, coupling=coupling, start_layer=start_layer, rows=rows, gamma=gamma, spread=spread
    )
    return read_maps(network, images_B3HW, present_BK, settings)


def read_maps(
    network: Network, images_B3HW: Tensor, present_BK: Tensor, settings: MapSettings
) -> tuple[Tensor, Tensor]:
    """``class_maps`` with its settings in one piece."""
    with frozen(network), torch.enable_grad():
        _, logits_BK, maps_BKhw = forward_with_maps(network, images_B3HW, present_BK, settings)
    return logits_BK, maps_BKhw


def forward_with_maps(
    network: Network,
    images_B3HW: Tensor,
    present_BK: Tensor,
    settings: MapSettings,
    *,
    taps: bool = False,
    keep_graph: bool = False,
) -> tuple[Features, Tensor, Tensor]:
    """One forward of the network and the class maps read from it.

    A backward costs as much for one image of the batch as for all, so images of equally many classes share their
    passes and none waits for another's.

    Args:
        network: its parameters may ask for gradients.
        images_B3HW: in [0, 1].
        present_BK: bool, on the host.
        settings: how to read a class.
        taps: whether features bring what the decoder reads.
        keep_graph: whether a loss will go backwards through features and logits.

    Returns:
        features, logits (B, K) and maps (B, K, h, w) float32; maps are detached, the others unless ``keep_graph``.
    """
    groups = image_groups(images_B3HW, present_BK, network.backbone.stride) if settings.method in BY_BACKWARD else []
    read = []
    for some_B3HW, some_BK in _parts(images_B3HW, present_BK, groups):
        with Recorder(network, settings) as recorder:
            features = network.features(some_B3HW, taps=taps)
            logits_BK = network.readout(features)
        maps_BKhw = recorder.maps(features, logits_BK, some_BK, keep_graph=keep_graph)
        if not keep_graph:
            features, logits_BK = _merged([features], _detached), logits_BK.detach()
        read.append((features, logits_BK, maps_BKhw))
    if len(read) == 1:
        return read[0]
    order_B = torch.cat(groups).argsort().to(images_B3HW.device, non_blocking=True)
    return (
        _merged([features for features, _, _ in read], lambda parts: torch.cat(parts)[order_B]),
        torch.cat([logits_BK for _, logits_BK, _ in read])[order_B],
        torch.cat([maps_BKhw for _, _, maps_BKhw in read])[order_B],
    )


def _parts(images_B3HW: Tensor, present_BK: Tensor, groups: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and tags of each group; all where there is but one."""
    if len(groups) < 2:
        yield images_B3HW, present_BK
        return
    for index_B in groups:
        yield images_B3HW[index_B.to(images_B3HW.device, non_blocking=True)], present_BK[index_B]


def _detached(parts: list[Tensor]) -> Tensor:
    (part,) = parts
    return part.detach()


def _merged(parts: Sequence[Features], merge: Callable[[list[Tensor]], Tensor]) -> Features:
    """Features of images that passed apart, each tensor merged from those of the parts."""

    def of(tensors: Sequence[Tensor | None]) -> Tensor | None:
        there = [tensor for tensor in tensors if tensor is not None]
        return merge(there) if there else None

    return Features(
        patches_BNC=merge([part.patches_BNC for part in parts]),
        class_BC=of([part.class_BC for part in parts]),
        grid=parts[0].grid,
        taps=[
            (merge([patches for patches, _ in tap]), of([token for _, token in tap]))
            for tap in zip(*(part.taps for part in parts), strict=True)
        ],
    )


def multiscale_scores(
    network: Network,
    images_by_scale: Sequence[Tensor],
    present_BK: Tensor,
    settings: MapSettings,
    *,
    flip: bool = False,
    opinion: LabelProbabilities | None = None,
) -> tuple[Tensor, Tensor]:
    """Class scores averaged over scales and flips, on the finest scale's grid.

    Each scale's maps are divided by their own maximum first: gradients shrink as tokens grow in number.

    Args:
        network: in ``eval`` mode.
        images_by_scale: for each scale (B, 3, H_s, W_s) in [0, 1].
        present_BK: bool, on the host.
        settings: how to read a class.
        flip: also read the mirrored images.
        opinion: hears what the decoder says in the same passes.

    Returns:
        logits (B, K), averaged, and scores (B, K, h, w) in [0, 1].
    """
    grid = finest_grid(network, images_by_scale)
    logits, scores = [], []
    for images, mirrored in passes(images_by_scale, flip=flip):
        with frozen(network), torch.enable_grad():
            features, logits_BK, maps_BKhw = forward_with_maps(
                network, images, present_BK, settings, taps=opinion is not None
            )
        if opinion is not None:
            with torch.no_grad():
                scores_BCHW = network.decode(features, (images.shape[2], images.shape[3]))
            opinion.add(scores_BCHW, mirrored=mirrored)
        scores_BKhw = normalise_scores(maps_BKhw.flip(3) if mirrored else maps_BKhw, present_BK)
        if scores_BKhw.shape[-2:] != grid:
            scores_BKhw = F.interpolate(scores_BKhw, size=grid, mode="bilinear", align_corners=False)
        logits.append(logits_BK)
        scores.append(scores_BKhw)
    return torch.stack(logits).mean(dim=0), normalise_scores(torch.stack(scores).sum(dim=0), present_BK)


def finest_grid(network: Network, images_by_scale: Sequence[Tensor]) -> tuple[int, int]:
    """(h, w) of the scale with most pixels."""
    finest = max(images_by_scale, key=lambda images: images.shape[2] * images.shape[3])
    rows, columns = network.backbone.stride
    return -(-finest.shape[2] // rows), -(-finest.shape[3] // columns)
