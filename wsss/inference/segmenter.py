"""Segment images in memory: a trained network as one object. `wsss predict` is this plus files.

Shape suffixes: B images, C = K + 1 label channels (background first), S some of them, h x w grid of the decoder, H x W
pixels of an image, 3 RGB.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsss.config import Config, RunSection
from wsss.data.levels import parse_levels
from wsss.data.masks import count_indices, write_mask
from wsss.data.scaled import COPIED_PIXELS, LARGEST_SIDE, reduced, resize, scaled_size
from wsss.data.windows import side_in_window, windows_of
from wsss.errors import UsageError
from wsss.inference.certainty import margins
from wsss.inference.inputs import ImageLike, image_array
from wsss.inference.refiner_file import FittedRefiner, read_refiner
from wsss.inference.settings import batch_pixels, predict_scales, predict_words, resolve_for
from wsss.labels.bands import labels_from_grid, probabilities_at
from wsss.labels.blending import WindowMaps, blended_bands
from wsss.labels.crf import MIN_PROBABILITY, Crf, crf_probabilities, require_crf
from wsss.labels.crf_label import crf_label, crf_size
from wsss.labels.recipe import follow_edges, resized, working_size
from wsss.machine import autocast, prepare_device
from wsss.maps.present import PresentMaps
from wsss.models.averaged import log_label_probabilities
from wsss.models.checkpoint import load_network
from wsss.models.network import Network
from wsss.models.onnx_network import OnnxNetwork
from wsss.outputs.palettes import PaletteName
from wsss.outputs.pictures import label_at, overlay

BACKGROUND = "background"


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The segmentation of one image.

    Attributes:
        label_HW: uint8 class indices at the size of the image; 0 is the background, k the class ``classes[k - 1]``.
        classes: foreground class names.
    """

    label_HW: NDArray[np.uint8]
    classes: tuple[str, ...]
    _grid_Chw: Tensor = field(repr=False)
    _image_HW3: NDArray[np.uint8] = field(repr=False)

    def probabilities(self, names: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Probabilities of classes at the size of the image, before any CRF.

        Args:
            names: class names or "background"; None gives the background and then all classes. Each takes 4 bytes a
                pixel.

        Returns:
            (S, H, W) float32 in [0, 1]; over all classes and the background they sum to 1.

        Raises:
            UsageError: a name is no class.
        """
        known = (BACKGROUND, *self.classes)
        unknown = [name for name in names or () if name not in known]
        if unknown:
            raise UsageError(f"'{unknown[0]}' is no class of this network", f"choose among {', '.join(known)}")
        channels = None if names is None else [known.index(name) for name in names]
        size = (self.label_HW.shape[0], self.label_HW.shape[1])
        return probabilities_at(self._grid_Chw, size, channels).numpy()

    def certainty(self) -> dict[int, float]:
        """Mean margin, in [0, 1], of the likeliest class over the second likeliest, by index of the classes found."""
        return margins(self._grid_Chw)

    def overlay(self, *, alpha: float = 0.5, palette: PaletteName = "voc") -> NDArray[np.uint8]:
        """The label map over the image in grey: (H, W, 3) uint8 RGB, reduced to about 4 megapixels where it has more.

        Args:
            alpha: weight of the class colours, in [0, 1].
            palette: "voc", the colours of the masks on disk, or "colorblind".
        """
        small_HW = label_at(self.label_HW, self._image_HW3.shape[:2])
        return overlay(self._image_HW3, small_HW, alpha=alpha, palette=palette)

    def save(self, path: str | Path) -> None:
        """Write the label map as a palette PNG."""
        write_mask(Path(path), self.label_HW)


class Segmenter:
    """A trained network that segments images; it never uses tags.

    Args:
        network: with a decoder, or one that was exported.
        config: run, predict and crf sections; scales that are None are the side of ``augment.size``.
        device: where it computes.
        uses: see below.
        fitted: of ``wsss fit-refiner``, makes the masks follow the edges of the image.

    Attributes:
        uses: the settings of a network that was loaded and whether they are the run's, in one line; else empty.

    Raises:
        UsageError: the network has no decoder, or both a refiner and the CRF are wanted.
        MachineError: the CRF is wanted and not installed.
    """

    def __init__(
        self,
        network: Network | OnnxNetwork,
        config: Config,
        device: torch.device,
        *,
        uses: str = "",
        fitted: FittedRefiner | None = None,
    ) -> None:
        if isinstance(network, Network):
            network.require_decoder()
        if config.predict.crf and fitted is not None:
            raise UsageError("the dense CRF and a refiner both refine the masks", "--no-crf, or leave out --refiner")
        if config.predict.crf:
            require_crf()
        self.fitted = fitted
        self.network = network.to(device).eval()
        self.config = config
        self.device = device
        self.scales = predict_scales(config)
        self.uses = uses

    @classmethod
    def load(
        cls,
        run: str | Path,
        *,
        device: str = "auto",
        checkpoint: str = "last",
        scales: Sequence[int] | None = None,
        flip: bool | None = None,
        crf: bool | None = None,
        refiner: str | Path | None = None,
    ) -> Segmenter:
        """Load a run of ``train-seg``, to be used as its own config says; the attribute ``uses`` says how that is.

        Args:
            run: its folder, or a checkpoint file.
            device: "auto", "cpu", "cuda" or "cuda:N".
            checkpoint: "last" or "best".
            scales: sides in pixels; None takes those of the run's config, or else the side of the training crops.
            flip: also average over the mirrored image; None: as the run's config says.
            crf: refine with the dense CRF; None: as the run's config says.
            refiner: file of ``wsss fit-refiner`` to refine with.

        Raises:
            DataError: there is no such run, or its checkpoint or the refiner cannot be read.
            UsageError: the run is one of ``train-cls``, or a value is wrong.
            MachineError: the device or the CRF is missing.
        """
        chosen = prepare_device(RunSection(device=device))
        network, trained, _ = load_network(Path(run), checkpoint)
        flags = {"run.device": device, "predict.scales": scales, "predict.flip": flip, "predict.crf": crf}
        config = resolve_for(trained, None, (), flags)
        fitted = None if refiner is None else read_refiner(Path(refiner))
        return cls(network, config, chosen, uses=predict_words(config, trained), fitted=fitted)

    @property
    def classes(self) -> tuple[str, ...]:
        """Foreground class names; class index k is ``classes[k - 1]``."""
        return self.network.classes

    @property
    def refines(self) -> bool:
        """Whether label maps are refined with their image, by the dense CRF or a refiner."""
        return self.config.predict.crf or self.fitted is not None

    def predict(self, image: ImageLike) -> Prediction:
        """Segment one image: an array (H, W, 3) uint8 RGB, a PIL image or a path."""
        return next(self.predict_many([image]))

    def predict_many(self, images: Iterable[ImageLike]) -> Iterator[Prediction]:
        """Segment images in order, in batches of equal shapes.

        Reads ahead until a batch is full, or until the images read have ``COPIED_PIXELS`` pixels together. An array may
        be used for the next image as soon as that is asked for.

        Raises:
            TypeError: one path was given, not many images.
        """
        if isinstance(images, str):
            raise TypeError(f"predict_many takes many images, got the string {images!r}: predict takes one path")
        stride, most = self.network.backbone.stride, batch_pixels(self.config.run, self.device)
        window: list[_Image] = []
        for image in images:
            window.append(_Image.of(image_array(image, parse_levels(self.config.data.levels)), self.scales, stride))
            full = sum(one.network_pixels for one in window) >= most
            if full or sum(one.size[0] * one.size[1] for one in window) >= COPIED_PIXELS:
                yield from self._predict(window)
                window = []
        yield from self._predict(window)

    def log_probabilities(self, images_by_scale: Sequence[Tensor]) -> Tensor:
        """Log-probabilities (B, C, h, w) on the finest grid, of (B, 3, H_s, W_s) images in [0, 1] at each scale."""
        with autocast(self.config.run, self.device):
            return log_label_probabilities(self.network, images_by_scale, flip=self.config.predict.flip)

    def label(self, grid_Chw: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The likeliest class of each pixel, (H, W) uint8, before any CRF."""
        return labels_from_grid(grid_Chw, size).cpu().numpy()

    def bands(self, image_HW3: NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
        """Probabilities of a large picture: those of overlapping windows (``predict.tile``), blended.

        The dense CRF or the refiner, where one is wanted, refines each window. Memory grows with the width of the
        picture, not with its area.

        Yields:
            bands of rows, and their probabilities (C, Y, W) float32 on the device; those of a pixel sum to 1.
        """
        size = (image_HW3.shape[0], image_HW3.shape[1])
        down, across = windows_of(size, self.config.predict.tile)
        window = (down.side, across.side)

        def rows_of_windows() -> Iterator[list[WindowMaps]]:
            for top in down.starts:
                strip_HW3 = image_HW3[top : top + down.side]
                yield list(self._windows([strip_HW3[:, x : x + across.side] for x in across.starts], window))

        return blended_bands(down, across, rows_of_windows(), len(self.classes) + 1, softmax=True)

    def label_large(self, image_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The likeliest class of each pixel of a large picture, (H, W) uint8, from its `bands`."""
        label_HW = np.empty(image_HW3.shape[:2], dtype=np.uint8)
        for rows, band_CYW in self.bands(image_HW3):
            label_HW[rows] = band_CYW.argmax(dim=0).to(torch.uint8).cpu().numpy()
        return label_HW

    def _windows(self, windows: Sequence[NDArray[np.uint8]], size: tuple[int, int]) -> Iterator[WindowMaps]:
        """The log-probabilities of windows of one size, in batches; after the CRF where it is wanted."""
        stride = self.network.backbone.stride
        sides = [side_in_window(side, size, self.config.predict.tile) for side in self.scales]
        sizes = [scaled_size(*size, side, stride) for side in sides]
        count = max(1, batch_pixels(self.config.run, self.device) // sum(height * width for height, width in sizes))
        for first in range(0, len(windows), count):
            some = [torch.from_numpy(window_HW3) for window_HW3 in windows[first : first + count]]
            batch = [torch.stack([resize(one, at) for one in some]).to(self.device).float() / 255 for at in sizes]
            for window_HW3, grid_Chw in zip(some, self.log_probabilities(batch), strict=True):
                if self.config.predict.crf:
                    yield self._window_crf(window_HW3.numpy(), grid_Chw)
                elif self.fitted is not None:
                    scores_Shw, candidates = self._follow_edges(window_HW3.numpy(), grid_Chw)
                    yield WindowMaps(scores_Shw.clamp_min(MIN_PROBABILITY).log().to(self.device), candidates)
                else:
                    yield WindowMaps(grid_Chw)

    def _window_crf(self, image_HW3: NDArray[np.uint8], grid_Chw: Tensor) -> WindowMaps:
        """The log-probabilities of one window after the dense CRF among the classes it holds and the background."""
        at = crf_size(image_HW3.shape[0], image_HW3.shape[1], self.config.crf)
        candidates = sorted({0, *count_indices(self.label(grid_Chw, at))})
        scores_Shw = probabilities_at(grid_Chw.cpu(), at, candidates)
        small_HW3 = resize(torch.from_numpy(image_HW3), at).permute(1, 2, 0).contiguous().numpy()
        if len(candidates) > 1:
            refined = crf_probabilities(small_HW3, scores_Shw.numpy(), self.config.crf)
            scores_Shw = torch.from_numpy(np.ascontiguousarray(refined))
        return WindowMaps(scores_Shw.clamp_min(MIN_PROBABILITY).log().to(self.device), candidates)

    def refined(
        self,
        label_HW: NDArray[np.uint8],
        grid_Chw: Tensor,
        image_HW3: NDArray[np.uint8],
        crf: Crf = crf_probabilities,
    ) -> NDArray[np.uint8]:
        """The label map after the dense CRF or the refiner, where one is wanted: among its classes and the background.

        Args:
            label_HW: from `label`.
            grid_Chw: log-probabilities, on the CPU.
            image_HW3: the image, perhaps reduced.
            crf: where the CRF runs.
        """
        size = (label_HW.shape[0], label_HW.shape[1])
        if self.fitted is not None:
            scores_Shw, candidates = self._follow_edges(image_HW3, grid_Chw, size)
            index_S = torch.tensor(candidates, dtype=torch.uint8)
            return index_S[labels_from_grid(scores_Shw, size).int()].numpy()
        if not self.config.predict.crf:
            return label_HW
        candidates = sorted({0, *count_indices(label_HW)})
        scores_Shw = probabilities_at(grid_Chw, crf_size(*size, self.config.crf), candidates)
        index_S = torch.tensor(candidates, dtype=torch.uint8)
        return crf_label(image_HW3, scores_Shw, index_S, size, self.config.crf, crf).numpy()

    def _follow_edges(
        self, image_HW3: NDArray[np.uint8], grid_Chw: Tensor, size: tuple[int, int] | None = None
    ) -> tuple[Tensor, list[int]]:
        """Probabilities after the refiner, (S, h, w) on the CPU, and their channels: those that win a pixel, and 0.

        Args:
            image_HW3: the image, perhaps reduced.
            grid_Chw: its log-probabilities.
            size: (H, W) of the original; None: that of ``image_HW3``.
        """
        assert self.fitted is not None
        at = working_size(*(size or (image_HW3.shape[0], image_HW3.shape[1])))
        grid_Chw = grid_Chw.cpu()
        candidates = sorted({0, *count_indices(self.label(grid_Chw, at))})
        scores_Shw = probabilities_at(grid_Chw, at, candidates)
        if len(candidates) == 1:
            return scores_Shw, candidates
        maps = PresentMaps.of(scores_Shw, torch.ones(1, len(candidates), dtype=torch.bool))
        image_13hw = resized(torch.from_numpy(image_HW3).permute(2, 0, 1)[None].float() / 255, at)
        return follow_edges(image_13hw, maps, self.config.labels, self.fitted.refiner).values_Rhw, candidates

    def _predict(self, window: Sequence[_Image]) -> Iterator[Prediction]:
        """The predictions of a window of images, in order; those of equal shapes share a batch."""
        groups: dict[tuple[torch.Size, ...], list[int]] = defaultdict(list)
        for i, image in enumerate(window):
            groups[tuple(scaled.shape for scaled in image.scaled)].append(i)
        made: dict[int, Prediction] = {}
        for places in groups.values():
            by_scale = zip(*(window[i].scaled for i in places), strict=True)
            batch = [torch.stack(scaled).to(self.device).float() / 255 for scaled in by_scale]
            for i, grid_Chw in zip(places, self.log_probabilities(batch), strict=True):
                label_HW = self.label(grid_Chw, window[i].size)
                grid_Chw, image_HW3 = grid_Chw.cpu().clone(), window[i].image_HW3
                made[i] = Prediction(self.refined(label_HW, grid_Chw, image_HW3), self.classes, grid_Chw, image_HW3)
        for i in range(len(window)):
            yield made.pop(i)


@dataclass(frozen=True, slots=True)
class _Image:
    """An image on its way to the network: its size, its scaled versions and a copy, perhaps reduced.

    None of them shares memory with the image, which its owner may write to in the meantime.
    """

    size: tuple[int, int]
    scaled: list[Tensor]
    image_HW3: NDArray[np.uint8]

    @classmethod
    def of(cls, image_HW3: NDArray[np.uint8], scales: Sequence[int], stride: tuple[int, int]) -> _Image:
        size = (image_HW3.shape[0], image_HW3.shape[1])
        tensor_HW3 = torch.from_numpy(image_HW3)
        scaled = [resize(tensor_HW3, scaled_size(*size, side, stride)).clone() for side in scales]
        return cls(size, scaled, reduced(tensor_HW3, LARGEST_SIDE).clone().numpy())

    @property
    def network_pixels(self) -> int:
        return sum(scaled.shape[1] * scaled.shape[2] for scaled in self.scaled)
