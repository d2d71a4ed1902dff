"""The network: timm backbone, readout and, for segmentation, a DPT decoder.

It owns the normalisation (images come in [0, 1], any size), the padding to whole patches and the class names.

Shape suffixes: B images, C = K + 1 label channels, K classes, H x W pixels, h x w patch grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.attention.edit import Edit, Pass
from wsss.attention.mode import AttentionMode
from wsss.attention.registry import build_edits
from wsss.errors import UsageError
from wsss.models.backbone import Backbone, Features
from wsss.models.convolution import Convolution, is_convolution
from wsss.models.decoder import DPTDecoder
from wsss.models.readout import READOUTS, Readout
from wsss.sections import EditSection

_passing: ContextVar[tuple[tuple[nn.Module, Edit], ...]] = ContextVar("passing edits", default=())
"""Networks and the edits of `Network.edited` that are in force; each thread has its own."""

TRANSFORMERS = "wsss backbones '*vit*'  # those with attention"


class Network(nn.Module):
    """A transformer that classifies images and, with a decoder, segments them; or a classifier without attention.

    Attributes:
        classes: foreground class names.
        attention: learned edits of the backbone's attention, in the order in which they act.
        supervision: the kinds of labels its weights were learnt from (`wsss.outputs.provenance`); empty where unknown.
        taps: indices of the blocks that the decoder reads.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        readout: Readout,
        decoder: DPTDecoder | None,
        classes: Sequence[str],
        attention: nn.ModuleList | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.attention = nn.ModuleList() if attention is None else attention
        self.readout = readout
        self.decoder = decoder
        self.classes = tuple(classes)
        self.supervision: tuple[str, ...] = ()
        depth = backbone.depth
        self.taps = tuple(max(depth * (i + 1) // 4 - 1, 0) for i in range(4)) if decoder is not None else ()
        mean, std = backbone.mean_std
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def normalise_as(self, mean: Tensor, std: Tensor) -> None:
        """Normalise images by these instead of timm's values for the backbone: three numbers each, of any shape."""
        self.mean.copy_(mean.view(1, 3, 1, 1))
        self.std.copy_(std.view(1, 3, 1, 1))

    @contextmanager
    def edited(self, *edits: Edit) -> Iterator[None]:
        """Inside, and in this thread alone, these edits act after the learned ones.

        Raises:
            UsageError: the backbone has no attention to edit.
        """
        if edits and not self.backbone.has_attention:
            raise UsageError(f"{self.backbone.name} has no attention to edit", TRANSFORMERS)
        token = _passing.set((*_passing.get(), *((self, edit) for edit in edits)))
        try:
            yield
        finally:
            _passing.reset(token)

    @property
    def edits(self) -> list[Edit]:
        """The learned edits, then those of `edited`."""
        learned = [edit for edit in self.attention if isinstance(edit, Edit)]
        return learned + [edit for network, edit in _passing.get() if network is self]

    def features(self, images_B3HW: Tensor, *, taps: bool = False, guide: Tensor | None = None) -> Features:
        """Tokens of images in [0, 1], padded with the mean colour at the bottom and right to whole patches.

        Args:
            images_B3HW: any size of at least one patch.
            taps: whether to bring the tokens that the decoder reads.
            guide: (B, K, h, w), what edits of attention may know of each image.
        """
        edits = self.edits
        x = (images_B3HW - self.mean) / self.std
        rows, columns = self.backbone.stride
        pad_bottom, pad_right = -x.shape[2] % rows, -x.shape[3] % columns
        if pad_bottom or pad_right:
            x = F.pad(x, (0, pad_right, 0, pad_bottom))
        if not edits:
            return self._tokens(x, taps)
        grid = (x.shape[2] // rows, x.shape[3] // columns)
        of = Pass(x * self.std + self.mean, grid, self.backbone.num_prefix_tokens, guide)
        with AttentionMode(edits, of, self.backbone.blocks):
            return self._tokens(x, taps)

    def _tokens(self, normalised_B3HW: Tensor, taps: bool) -> Features:
        features: Features = self.backbone(normalised_B3HW, self.taps if taps else ())
        return features

    def classify(self, images_B3HW: Tensor, *, guide: Tensor | None = None) -> Tensor:
        """(B, K) class logits of images in [0, 1], any size of at least one patch; for the guide see `features`."""
        logits_BK: Tensor = self.readout(self.features(images_B3HW, guide=guide))
        return logits_BK

    def decode_grid(self, features: Features) -> Tensor:
        """(B, C, 8h, 8w) label scores (logits) of the decoder before any upsampling, from features with taps."""
        scores_BChw: Tensor = self.require_decoder()(features.taps)
        return scores_BChw

    def scores_on_grid(self, images_B3HW: Tensor) -> Tensor:
        """(B, C, 8h, 8w) label scores (logits) of images in [0, 1] on the decoder's grid."""
        return self.decode_grid(self.features(images_B3HW, taps=True))

    def decode(self, features: Features, size: tuple[int, int]) -> Tensor:
        """(B, C, H, W) label scores (logits) at image size, from features with taps."""
        return self.to_image(self.decode_grid(features), features.grid, size)

    def require_decoder(self) -> DPTDecoder:
        """The decoder.

        Raises:
            UsageError: the network only classifies.
        """
        if self.decoder is None:
            raise UsageError(
                "this network was trained for tags alone and cannot segment",
                "wsss train-seg --data DIR --init RUN -o RUN2",
            )
        return self.decoder

    def to_image(self, maps_BChw: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """(B, C, H, W): maps of the padded patch grid, or of a multiple of it, upsampled bilinearly; padding is cut.

        Args:
            maps_BChw: any number of channels.
            grid: (h, w) patches of the padded images.
            size: (H, W) of the images.
        """
        padded = (grid[0] * self.backbone.stride[0], grid[1] * self.backbone.stride[1])
        maps = F.interpolate(maps_BChw.float(), size=padded, mode="bilinear", align_corners=False)
        return maps[:, :, : size[0], : size[1]]

    def forward(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (B, K) and label scores (B, C, H, W), logits at image size."""
        features = self.features(images_B3HW, taps=True)
        size = (images_B3HW.shape[2], images_B3HW.shape[3])
        return self.readout(features), self.decode(features, size)


def build_network(
    backbone: str,
    classes: Sequence[str],
    weights: str | None = None,
    *,
    readout: str = "auto",
    decoder: bool = True,
    decoder_channels: int = 96,
    drop_path: float = 0.0,
    vit: Mapping[str, int] | None = None,
    attention: Sequence[EditSection] = (),
) -> Network:
    """Build a network.

    Args:
        backbone: a timm vision transformer, or ConvNeXt, EfficientNet or ResNet for a classifier.
        classes: foreground class names, at least one.
        weights: of the backbone: a file, "pretrained" (timm's hub) or None for random ones.
        readout: "project" (the paper's), "token", "pool", "both", or "auto": "project" where there is a class
            token, else "pool".
        decoder: whether it segments too.
        decoder_channels: width of the decoder.
        drop_path: stochastic depth of the backbone.
        vit: overrides of the backbone's own arguments (depth, embed_dim, ...).
        attention: learned edits of its attention.

    Raises:
        UsageError: timm has no such backbone, or the decoder, the readout or an edit does not fit it.
        DataError: the weights do not fit.
    """
    if not classes:
        raise UsageError("a network needs at least one class", "wsss train-cls --data DIR  # with tags")
    kind = Convolution if is_convolution(backbone) else Backbone
    if decoder and not kind.has_attention:
        raise UsageError(
            f"--backbone {backbone}: has no blocks of attention, which the decoder of masks reads",
            "wsss train-seg --data DIR --labels LABELS --backbone deit_tiny_patch16_224  # LABELS: make-pseudo's",
        )
    if attention and not kind.has_attention:
        raise UsageError(f"model.attention: {backbone} has no attention to edit", TRANSFORMERS)
    trunk = kind(backbone, drop_path=drop_path, overrides=vit)
    if weights is not None and weights != "none":
        trunk.load(weights)
    if readout == "auto":
        readout = "project" if trunk.has_class_token else "pool"
    if readout != "pool" and not trunk.has_class_token:
        raise UsageError(f"readout '{readout}' needs a class token, which {backbone} lacks", "--set model.readout=pool")
    head = READOUTS[readout](trunk.embed_dim, len(classes))
    dpt = None
    if decoder:
        dpt = DPTDecoder(
            trunk.embed_dim,
            len(classes) + 1,
            channels=decoder_channels,
            has_class_token=trunk.has_class_token,
        )
    return Network(trunk, head, dpt, classes, build_edits(attention, trunk.depth, trunk.num_heads))
