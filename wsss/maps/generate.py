"""Class maps of a batch: one forward, then one backward for the r-th present class of every image.

Images do not influence each other, so the logit of one class of each image may share a backward: the number of
backwards is the largest number of tags in the batch. Gradients are taken with respect to the recorded attention
outputs alone; no parameter gradient is computed.

Shape suffixes: B images, K classes, H x W pixels, h x w patch grid, N tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from wsss.maps.scores import normalise_scores
from wsss.maps.tape import AttentionTape
from wsss.models.backbone import Features
from wsss.models.network import Network

BY_BACKWARD = {*BY_GRADIENT, "gradcam"}
"""Methods that ask for a backward a class."""

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
        self.tape = AttentionTape(settings.start_layer)
        self._stack = ExitStack()
        self._tokens_BNC: Tensor | None = None

    def __enter__(self) -> Recorder:
        if self.settings.method == "gradcam":
            handle = self.network.backbone.gradcam_layer.register_forward_hook(self._keep_tokens)
            self._stack.callback(handle.remove)
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
            present_BK: bool, the image-level labels.
            keep_graph: whether another backward follows through the same pass.
        """
        method = self.settings.method
        if method == "cam":
            maps_BKhw = self.network.readout.cam(features).detach().float().relu()
        elif method in CLASS_AGNOSTIC:
            row_BN = CLASS_AGNOSTIC[method](self._reading())
            maps_BKhw = self._on_grid(row_BN, features.grid)[:, None].expand(-1, logits_BK.shape[1], -1, -1)
        else:
            maps_BKhw = self._by_gradient(features.grid, logits_BK, present_BK, keep_graph)
        return self._spread(maps_BKhw) * present_BK[:, :, None, None]

    def _spread(self, maps_BKhw: Tensor) -> Tensor:
        settings = self.settings
        if settings.gamma != 1:
            maps_BKhw = maps_BKhw.clamp_min(0) ** settings.gamma
        if settings.spread == 0:
            return maps_BKhw
        prefix = self.network.backbone.num_prefix_tokens
        spread_BKM = spread(maps_BKhw.flatten(2), self.tape.attentions, prefix, settings.spread)
        return spread_BKM.reshape(maps_BKhw.shape)

    def _reading(self) -> Reading:
        fed: Literal["token", "pool", "both"] = (
            self.network.readout.fed if self.settings.rows == "auto" else self.settings.rows
        )
        return Reading(
            attentions=self.tape.attentions[self.settings.start_layer :],
            num_prefix_tokens=self.network.backbone.num_prefix_tokens,
            fed=fed,
            coupling=self.settings.coupling,
        )

    def _by_gradient(self, grid: tuple[int, int], logits_BK: Tensor, present_BK: Tensor, keep_graph: bool) -> Tensor:
        reading = self._reading()
        scale = HALF_SCALE if logits_BK.dtype == torch.float16 else 1.0
        maps_BKhw = logits_BK.new_zeros((*logits_BK.shape, *grid), dtype=torch.float32)
        rounds = list(one_class_an_image(present_BK))
        for number, chosen_BK in enumerate(rounds):
            score = (logits_BK * chosen_BK).sum() * scale
            retain = keep_graph or number + 1 < len(rounds)
            map_Bhw = self._on_grid(self._row(reading, score, scale, retain), grid)
            maps_BKhw += chosen_BK[:, :, None, None] * map_Bhw[:, None]
        return maps_BKhw

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


def one_class_an_image(present_BK: Tensor) -> Iterator[Tensor]:
    """Rounds of (B, K) bool: in round r each image has its r-th present class, or none left."""
    rank_BK = present_BK.cumsum(dim=1)
    for number in range(1, int(rank_BK.max().item()) + 1 if rank_BK.numel() else 1):
        yield present_BK & (rank_BK == number)


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
        present_BK: bool; maps are made for these classes.
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
    """``class_maps`` with its settings in one piece.

    A backward costs as much for one class in the batch as for one of every image, so images with equally many classes
    share their passes and none waits for another's.
    """
    present_BK = present_BK.to(images_B3HW.device)
    count_B = present_BK.sum(dim=1)
    groups = [(count_B == count).nonzero().flatten() for count in sorted(set(count_B.tolist()))]
    if settings.method not in BY_BACKWARD or len(groups) < 2:
        return _read_together(network, images_B3HW, present_BK, settings)
    read = [_read_together(network, images_B3HW[index], present_BK[index], settings) for index in groups]
    order_B = torch.cat(groups).argsort()
    logits_BK, maps_BKhw = (torch.cat(parts)[order_B] for parts in zip(*read, strict=True))
    return logits_BK, maps_BKhw


def _read_together(
    network: Network, images_B3HW: Tensor, present_BK: Tensor, settings: MapSettings
) -> tuple[Tensor, Tensor]:
    with frozen(network), torch.enable_grad():
        with Recorder(network, settings) as recorder:
            features = network.features(images_B3HW)
            logits_BK = network.readout(features)
        maps_BKhw = recorder.maps(features, logits_BK, present_BK)
    return logits_BK.detach(), maps_BKhw


def multiscale_scores(
    network: Network,
    images_by_scale: Sequence[Tensor],
    present_BK: Tensor,
    settings: MapSettings,
    *,
    flip: bool = False,
) -> tuple[Tensor, Tensor]:
    """Class scores averaged over scales and flips, on the finest scale's grid.

    Each scale's maps are divided by their own maximum first: gradients shrink as tokens grow in number.

    Args:
        network: in ``eval`` mode.
        images_by_scale: for each scale (B, 3, H_s, W_s) in [0, 1].
        present_BK: bool.
        settings: how to read a class.
        flip: also read the mirrored images.

    Returns:
        logits (B, K), averaged, and scores (B, K, h, w) in [0, 1].
    """
    passes = [(images, mirrored) for images in images_by_scale for mirrored in ((False, True) if flip else (False,))]
    finest = max(images_by_scale, key=lambda images: images.shape[2] * images.shape[3])
    rows, columns = network.backbone.stride
    grid = (-(-finest.shape[2] // rows), -(-finest.shape[3] // columns))
    logits_sum: Tensor | None = None
    scores_sum: Tensor | None = None
    for images, mirrored in passes:
        logits_BK, maps_BKhw = read_maps(network, images.flip(3) if mirrored else images, present_BK, settings)
        scores = normalise_scores(maps_BKhw.flip(3) if mirrored else maps_BKhw, present_BK.to(maps_BKhw.device))
        if scores.shape[-2:] != grid:
            scores = F.interpolate(scores, size=grid, mode="bilinear", align_corners=False)
        logits_sum = logits_BK if logits_sum is None else logits_sum + logits_BK
        scores_sum = scores if scores_sum is None else scores_sum + scores
    assert logits_sum is not None
    assert scores_sum is not None
    scores_BKhw = normalise_scores(scores_sum, present_BK.to(scores_sum.device))
    return logits_sum / len(passes), scores_BKhw
