"""How a class is read out of a forward pass, and the recorder that does it.

Images do not influence each other, so the logits of one class of each image can share a backward: the number of
backwards is the largest number of tags among the images of a pass. Gradients are taken with respect to the recorded
attention outputs alone; no parameter gradient is computed.

Shape suffixes: B images, K classes, S slots of an image (the largest number of tags), h x w patch grid, N tokens
(prefix tokens first), C channels of a token, A heads, D channels a head.
"""

from __future__ import annotations

from contextlib import ExitStack
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
from wsss.maps.passes import one_class_an_image
from wsss.maps.present import PresentMaps
from wsss.maps.tape import AttentionTape
from wsss.models.backbone import Features
from wsss.models.convolution import batch_norms
from wsss.models.network import Network

BY_BACKWARD = {*BY_GRADIENT, "gradcam"}
"""Methods that need one backward for each class of an image."""

BY_ROWS = {"getam", "attention-gradient"}
"""Methods that read the gradient of the explaining rows of attention and of no other rows."""

WITHOUT_ATTENTION = ("cam", "gradcam")
"""Methods that read the last map alone, so that the backbone may be one without attention."""

DIFFERENTIAL = "DiffAttention"
"""timm's attention that subtracts one attention from another; not every version of timm has this class."""

DEFAULTS = MapsSection()

HALF_SCALE = 1024.0
"""Under fp16 the logit is multiplied by this for the backward, so that small gradients do not become 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MapSettings:
    """How a class is read out; see ``wsss.maps.methods``.

    ``rows`` "auto" takes those of the tokens that feed the head. Maps are raised to the power ``gamma`` and then
    spread ``spread`` times by the affinity of the patches (``wsss.maps.affinity``). The defaults are those of the
    config, not the published ones (``wsss.maps.generate.class_maps``).
    """

    method: Method = DEFAULTS.method
    coupling: Coupling = DEFAULTS.coupling
    start_layer: int | None = DEFAULTS.start_layer
    rows: Rows = DEFAULTS.rows
    gamma: float = DEFAULTS.gamma
    spread: int = DEFAULTS.spread

    @classmethod
    def of(cls, section: MapsSection) -> MapSettings:
        """The settings of a config section."""
        return cls(**section.model_dump(include={field.name for field in fields(cls)}))

    def first_block(self, depth: int) -> int:
        """Index of the first block of ``depth`` whose attention is read: the upper half, where none is named."""
        return depth // 2 if self.start_layer is None else self.start_layer


def check_map_settings(network: Network, settings: MapSettings) -> None:
    """Refuse settings of class maps that do not fit a network, before long work.

    Raises:
        UsageError: the start layer is no block, the rows need a class token that the backbone lacks, its blocks
            compute attention twice, or it has no attention and the settings read it.
    """
    backbone = network.backbone
    if not backbone.has_attention:
        _check_without_attention(backbone.name, settings)
        return
    if settings.first_block(backbone.depth) >= backbone.depth:
        raise UsageError(
            f"maps.start_layer {settings.start_layer}: {backbone.name} has {backbone.depth} blocks, from 0 to"
            f" {backbone.depth - 1}",
            f"--set maps.start_layer={backbone.depth // 2}",
        )
    if settings.rows in ("token", "both") and not backbone.has_class_token:
        raise UsageError(
            f"maps.rows={settings.rows}: {backbone.name} has no class token, whose row of attention it reads",
            "--set maps.rows=pool",
        )
    if any(type(block.attn).__name__ == DIFFERENTIAL for block in backbone.blocks):
        raise UsageError(
            f"{backbone.name}: its blocks compute attention twice (differential attention); class maps need one call",
            "wsss backbones  # those that class maps can be read from",
        )


def _check_without_attention(name: str, settings: MapSettings) -> None:
    asked = []
    if settings.method not in WITHOUT_ATTENTION:
        asked.append(f"maps.method={settings.method}")
    asked += [f"maps.{key}={getattr(settings, key)}" for key in ("spread", "start_layer") if getattr(settings, key)]
    if settings.rows in ("token", "both"):
        asked.append(f"maps.rows={settings.rows}")
    if asked:
        raise UsageError(
            f"{', '.join(asked)}: {name} has no attention to read; its class maps are cam or gradcam, not spread",
            "--set maps.method=gradcam --set maps.spread=0 --set maps.start_layer=null --set maps.rows=auto",
        )


class Recorder:
    """Records a forward pass of the network for maps: the tape and, for grad-CAM, one layer's tokens.

    Use as a context around ``network.features``; then ``maps`` reads the record, while the graph of the pass exists.

    Raises:
        UsageError: the settings do not fit the network (`check_map_settings`), or a BatchNorm of it is in training.
    """

    def __init__(self, network: Network, settings: MapSettings) -> None:
        check_map_settings(network, settings)
        if any(module.training for module in batch_norms(network.backbone)):
            raise UsageError(f"class maps of {network.backbone.name} depend on its batch", "network.eval()")
        self.network = network
        self.settings = settings
        self.start_layer = settings.first_block(network.backbone.depth)
        self.tape = AttentionTape(
            network.backbone.blocks if network.backbone.has_attention else [],
            self.start_layer,
            below=settings.spread > 0,
            name=network.backbone.name,
        )
        self._stack = ExitStack()
        self._tokens_BNC: Tensor | None = None
        self._block_tokens: list[Tensor] = []

    def __enter__(self) -> Recorder:
        if self.settings.method == "legrad":
            for block in self.network.backbone.blocks[self.start_layer :]:
                self._stack.callback(block.register_forward_hook(self._keep_block).remove)
        if self.settings.method == "gradcam":
            handle = self.network.backbone.gradcam_layer.register_forward_hook(self._keep_tokens)
            self._stack.callback(handle.remove)
        if self.settings.method in BY_ROWS and self._fed == "token":
            block = self.network.backbone.blocks[self.start_layer]
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

    def _keep_block(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._block_tokens.append(output)

    def maps(
        self, features: Features, logits_BK: Tensor, present_BK: Tensor, *, keep_graph: bool = False
    ) -> PresentMaps:
        """Class maps of the present classes on the patch grid, detached.

        Computed in float32 with autocast off: in half precision attention and its small gradients would become 0.

        Args:
            features: of the recorded pass.
            logits_BK: the readout of these features.
            present_BK: bool, the image-level labels, on the host.
            keep_graph: whether another backward follows through the same pass.
        """
        (maps,) = self._maps(features, logits_BK, present_BK, range(1), keep_graph)
        return maps

    def maps_by_start(self, features: Features, logits_BK: Tensor, present_BK: Tensor) -> list[PresentMaps]:
        """The same maps, read from each later block on: the first are those of ``start_layer``, the last of one block.

        All come from one pass and one backward a class; see `maps`.
        """
        return self._maps(features, logits_BK, present_BK, range(len(self.tape.from_start)), keep_graph=False)

    def _maps(
        self, features: Features, logits_BK: Tensor, present_BK: Tensor, starts: range, keep_graph: bool
    ) -> list[PresentMaps]:
        """Maps of the blocks from each start on, counted from ``start_layer``."""
        empty = PresentMaps.of(logits_BK.new_empty(0, *features.grid, dtype=torch.float32), present_BK)
        if len(empty.image_R) == 0:
            return [empty for _ in starts]
        if self.settings.method == "cam":
            cam_BKhw = self.network.readout.cam(features).detach().float().relu()
            packed = [PresentMaps.from_dense(cam_BKhw, present_BK).pack() for _ in starts]
        with torch.autocast(logits_BK.device.type, enabled=False):
            if self.settings.method != "cam":
                packed = self._slots(features.grid, logits_BK, present_BK, starts, keep_graph)
            return [empty.unpack(self._spread(maps_BShw)) for maps_BShw in packed]

    def _slots(
        self, grid: tuple[int, int], logits_BK: Tensor, present_BK: Tensor, starts: range, keep_graph: bool
    ) -> list[Tensor]:
        """(B, S, h, w) a start: the map of each image's s-th class; slots without a class hold anything finite."""
        device = logits_BK.device
        rounds = [chosen_BK.to(device, non_blocking=True) for chosen_BK in one_class_an_image(present_BK)]
        if self.settings.method in CLASS_AGNOSTIC:
            rows = [CLASS_AGNOSTIC[self.settings.method](self._reading(start)) for start in starts]
            return [self._on_grid(row_BN, grid)[:, None].expand(-1, len(rounds), -1, -1) for row_BN in rows]
        return self._by_gradient(grid, logits_BK, rounds, starts, keep_graph)

    def _spread(self, maps_BShw: Tensor) -> Tensor:
        settings = self.settings
        if settings.gamma != 1:
            maps_BShw = maps_BShw.clamp_min(0) ** settings.gamma
        if settings.spread == 0:
            return maps_BShw
        prefix = self.network.backbone.num_prefix_tokens
        return spread(maps_BShw.flatten(2), self.tape.attentions, prefix, settings.spread).reshape(maps_BShw.shape)

    @property
    def _fed(self) -> Literal["token", "pool", "both"]:
        return self.network.readout.fed if self.settings.rows == "auto" else self.settings.rows

    def _reading(self, start: int) -> Reading:
        return Reading(
            attentions=self.tape.from_start[start:],
            num_prefix_tokens=self.network.backbone.num_prefix_tokens,
            fed=self._fed,
            coupling=self.settings.coupling,
        )

    def _by_gradient(
        self, grid: tuple[int, int], logits_BK: Tensor, rounds: list[Tensor], starts: range, keep_graph: bool
    ) -> list[Tensor]:
        readings = [self._reading(start) for start in starts]
        scale = HALF_SCALE if logits_BK.dtype == torch.float16 else 1.0
        each = self._logits_by_block(grid) if self.settings.method == "legrad" else [logits_BK]
        maps: list[list[Tensor]] = [[] for _ in starts]
        for number, chosen_BK in enumerate(rounds):
            scores = [(one_BK.float() * chosen_BK).sum() * scale for one_BK in each]
            retain = keep_graph or number + 1 < len(rounds)
            for of_start, row_BN in zip(maps, self._rows(readings, scores, scale, retain), strict=True):
                of_start.append(self._on_grid(row_BN, grid))
        return [torch.stack(of_start, dim=1) for of_start in maps]

    def _logits_by_block(self, grid: tuple[int, int]) -> list[Tensor]:
        """(B, K) logits that the head gives to the tokens after each recorded block."""
        backbone, readout = self.network.backbone, self.network.readout
        with torch.enable_grad():
            return [readout(backbone.as_last(tokens_BNC, grid)) for tokens_BNC in self._block_tokens]

    def _rows(self, readings: list[Reading], scores: list[Tensor], scale: float, retain: bool) -> list[Tensor]:
        """The map of one class an image, (B, N) a reading, from its logit, or from its logit after each block."""
        if self.settings.method == "gradcam":
            tokens_BNC = self._tokens_BNC
            assert tokens_BNC is not None
            (gradient_BNC,) = torch.autograd.grad(scores[0], tokens_BNC, retain_graph=retain)
            first = self.network.backbone.num_prefix_tokens
            row_BN = gradcam(tokens_BNC[:, first:], gradient_BNC[:, first:].float() / scale)
            return [F.pad(row_BN, (first, 0)) for _ in readings]
        outputs = [attention.output_BAND for attention in self.tape.from_start]
        if self.settings.method == "legrad":
            pairs = zip(scores, outputs, strict=True)
            gradients = [torch.autograd.grad(score, output, retain_graph=True)[0] for score, output in pairs]
        else:
            gradients = list(torch.autograd.grad(scores[0], outputs, retain_graph=retain))
        if scale != 1:
            gradients = [gradient.float() / scale for gradient in gradients]
        read = BY_GRADIENT[self.settings.method]
        return [read(reading, gradients[-len(reading.attentions) :]) for reading in readings]

    def _on_grid(self, row_BN: Tensor, grid: tuple[int, int]) -> Tensor:
        return row_BN[:, self.network.backbone.num_prefix_tokens :].detach().reshape(-1, *grid)
