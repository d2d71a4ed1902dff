"""Pseudo labels of tagged images in memory: a trained network as one object. `wsss make-pseudo` is this plus files.

Shape suffixes: B images, C = K + 1 label channels, K classes, R present classes of an image, h x w any grid, H x W
pixels, 3 RGB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsss.config import Config, LabelsSection, RunSection, Source
from wsss.data.levels import parse_levels
from wsss.data.scaled import LARGEST_SIDE, reduced, resize, scaled_size
from wsss.data.windows import side_in_window, windows_of
from wsss.errors import UsageError
from wsss.inference.inputs import ImageLike, image_array
from wsss.inference.refiner_file import FittedRefiner, read_refiner
from wsss.inference.settings import batch_pixels, map_scales, map_words, resolve_for
from wsss.labels.blending import WindowMaps, blended_bands
from wsss.labels.crf import Crf, crf_probabilities, require_crf
from wsss.labels.pamr import ITERATIONS
from wsss.labels.recipe import Refined, complete, complete_bands, opening_of, refine_scores, resized, working_size
from wsss.machine import autocast, be_deterministic, prepare_device
from wsss.maps.generate import multiscale_scores
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import MapSettings, check_map_settings
from wsss.models.averaged import LabelProbabilities, decoder_grid
from wsss.models.checkpoint import load_network
from wsss.models.network import Network


@dataclass(frozen=True, slots=True)
class Reading:
    """What the network says of a batch.

    Attributes:
        scores: class scores in [0, 1] of the present classes, on the patch grid of the finest scale.
        log_probabilities_BChw: those of the decoder, on its grid; None where labels are made of maps alone.
    """

    scores: PresentMaps
    log_probabilities_BChw: Tensor | None


class Labeller:
    """A trained network that labels the pixels of images whose tags are known.

    Args:
        network: of ``train-cls`` or ``train-seg``.
        config: run, maps, labels and crf sections.
        device: where it computes.
        uses: see below.
        fitted: of ``wsss fit-refiner``, takes the place of PAMR.

    Attributes:
        labels: the settings as they take effect (`effective_labels`).
        uses: the settings of a network that was loaded and whether they are the run's, in one line; else empty.

    Raises:
        UsageError: the map settings do not fit the network, or there is a refiner and nothing is to be refined.
        MachineError: the CRF is wanted and not installed.
    """

    def __init__(
        self,
        network: Network,
        config: Config,
        device: torch.device,
        *,
        uses: str = "",
        fitted: FittedRefiner | None = None,
    ) -> None:
        if config.labels.crf:
            require_crf()
        check_map_settings(network, MapSettings.of(config.maps))
        if fitted is not None and config.labels.pamr_iterations == 0:
            raise UsageError(
                "labels.pamr_iterations is 0, which refines nothing, and a refiner was given",
                f"--set labels.pamr_iterations={ITERATIONS}, or leave out --refiner",
            )
        self.fitted = fitted
        self._refiner = None if fitted is None else fitted.refiner.to(device)
        self.network = network.to(device).eval()
        self.config = config
        self.device = device
        self.labels = effective_labels(network, config.labels)
        self.scales = map_scales(config)
        self.uses = uses
        self._settings = MapSettings.of(config.maps)

    @classmethod
    def load(
        cls,
        run: str | Path,
        *,
        device: str = "auto",
        checkpoint: str = "last",
        config: Source = None,
        settings: Iterable[str] = (),
        refiner: str | Path | None = None,
    ) -> Labeller:
        """Load a run of ``train-cls`` or ``train-seg``, to be used as its own config says.

        Keys of ``config`` take precedence over it, and those of ``settings`` over both; the attribute ``uses`` says
        which are used.

        Args:
            run: its folder, or a checkpoint file.
            device: "auto", "cpu", "cuda" or "cuda:N".
            checkpoint: "last" or "best".
            config: a YAML file or the name of a preset, or several of them, as ``-c`` of the command line takes them.
            settings: "key=value" each, as ``--set`` takes them: "maps.method=cam".
            refiner: file of ``wsss fit-refiner``, in place of PAMR.

        Raises:
            DataError: there is no such run, or its checkpoint or the refiner cannot be read.
            UsageError: a setting is wrong.
            MachineError: the device or the CRF is missing.
        """
        chosen = prepare_device(RunSection(device=device))
        network, trained, _ = load_network(Path(run), checkpoint)
        resolved = resolve_for(trained, config, settings, {"run.device": device})
        be_deterministic(resolved.run)
        uses = map_words(resolved, effective_labels(network, resolved.labels), trained)
        fitted = None if refiner is None else read_refiner(Path(refiner))
        return cls(network, resolved, chosen, uses=uses, fitted=fitted)

    @property
    def classes(self) -> tuple[str, ...]:
        """Foreground class names; class index k is ``classes[k - 1]``."""
        return self.network.classes

    def label(
        self, image: ImageLike, tags: Sequence[str], *, saliency: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """The pseudo label of one image.

        Args:
            image: an array (H, W, 3) uint8 RGB, a PIL image or a path.
            tags: names of the classes that it holds; none means background only.
            saliency: (H, W) uint8, 0 to 255: extra supervision.

        Returns:
            (H, W) uint8: class indices, 0 background, 255 ignored.

        Raises:
            UsageError: a tag is no class of the network.
            TypeError: the tags are one string, or the saliency map is not uint8.
            ValueError: the saliency map has another size than the image.
        """
        image_HW3 = image_array(image, parse_levels(self.config.data.levels))
        size = (image_HW3.shape[0], image_HW3.shape[1])
        if saliency is not None and saliency.dtype != np.uint8:
            raise TypeError(f"a saliency map is an array (H, W) of uint8, got {saliency.dtype}")
        if saliency is not None and saliency.shape != size:
            raise ValueError(f"the saliency map has the shape {saliency.shape}, its image {size}")
        copy_HW3 = reduced(torch.from_numpy(image_HW3), LARGEST_SIDE)
        refined = self.refine([copy_HW3], size, self._read_one(image_HW3, tags)).to("cpu")
        saliency_HW = None if saliency is None else torch.from_numpy(saliency)
        return self.complete(refined, size, copy_HW3.numpy(), saliency_HW)

    def maps(self, image: ImageLike, tags: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Class scores of one image before refinement: for each tag (h, w) float32 in [0, 1] on the patch grid.

        Raises:
            UsageError: a tag is no class of the network.
            TypeError: the tags are one string.
        """
        scores = self._read_one(image_array(image, parse_levels(self.config.data.levels)), tags).scores
        names = [self.classes[k] for k in scores.class_R.tolist()]
        return dict(zip(names, scores.values_Rhw.cpu().numpy(), strict=True))

    def read(self, images_by_scale: Sequence[Tensor], present_BK: Tensor) -> Reading:
        """Class scores and, from the same passes, the decoder's probabilities.

        Args:
            images_by_scale: for each scale (B, 3, H_s, W_s) in [0, 1], in whole patches, on the device.
            present_BK: bool, on the host.
        """
        mean = LabelProbabilities(decoder_grid(self.network, images_by_scale)) if self.labels.decoder else None
        with autocast(self.config.run, self.device):
            _, scores = multiscale_scores(
                self.network,
                images_by_scale,
                present_BK,
                self._settings,
                flip=self.config.maps.flip,
                decoder=mean,
            )
        return Reading(scores, None if mean is None else mean.log_mean())

    def refine(
        self,
        images: Sequence[Tensor],
        size: tuple[int, int],
        reading: Reading,
        chosen: Sequence[int] | None = None,
        *,
        peaks_R: Tensor | None = None,
    ) -> Refined:
        """Scores that follow the edges of images of one size.

        Args:
            images: each (H, W, 3) uint8, perhaps reduced (`wsss.data.scaled.reduced`).
            size: (H, W) of the originals.
            reading: of a batch that holds them.
            chosen: their places in that batch; None where they are the batch.
            peaks_R: see `refine_scores`.
        """
        places = range(len(images)) if chosen is None else chosen
        stacked = torch.stack([image.to(self.device, non_blocking=True).permute(2, 0, 1) for image in images])
        grid_BChw = reading.log_probabilities_BChw
        return refine_scores(
            resized(stacked.float() / 255, working_size(*size)),
            reading.scores.select(places),
            self.labels,
            log_probabilities_BChw=None if grid_BChw is None else torch.stack([grid_BChw[i] for i in places]),
            peaks_R=peaks_R,
            refiner=self._refiner,
        )

    def complete(
        self,
        refined: Refined,
        size: tuple[int, int],
        image_HW3: NDArray[np.uint8],
        saliency_HW: Tensor | None = None,
        crf: Crf = crf_probabilities,
    ) -> NDArray[np.uint8]:
        """The pseudo label (H, W) uint8 of one refined image, on the CPU.

        Args:
            refined: of one image, on the CPU.
            size: (H, W) of the label.
            image_HW3: the image, perhaps reduced; read by the CRF alone.
            saliency_HW: uint8, or None.
            crf: where the CRF runs.
        """
        label_1HW = complete(
            refined,
            size,
            self.labels,
            saliency_BHW=None if saliency_HW is None else saliency_HW[None],
            images_HW3=[image_HW3] if self.labels.crf else None,
            crf=crf,
            crf_section=self.config.crf,
        )
        return label_1HW[0].numpy()

    def label_large(self, image_HW3: NDArray[np.uint8], present_1K: Tensor) -> NDArray[np.uint8]:
        """The pseudo label (H, W) uint8 of a large picture, from overlapping windows (``maps.tile``); no CRF.

        Tags are of the whole picture, and most windows do not hold most of its classes. A map divided by its own
        maximum would have a peak of 1 in each of them, and background would be labelled. So windows are read twice:
        first the classifier says how probable each tagged class is in each window, then the refined map of a window is
        given the peak ``p / max(p over all windows)``. The peak is 1 in the window that shows the class best, as in a
        picture that is read whole. Raw maps cannot be compared instead: they are gradients, whose size depends on the
        window. Scores, and with a decoder the background's probability, are blended before a pixel is decided.

        Args:
            image_HW3: RGB.
            present_1K: bool, its tags, on the host.
        """
        size = (image_HW3.shape[0], image_HW3.shape[1])
        if not present_1K.any():
            return np.zeros(size, dtype=np.uint8)
        down, across = windows_of(size, self.config.maps.tile)

        def strips() -> Iterator[list[Tensor]]:
            for top in down.starts:
                strip_HW3 = torch.from_numpy(image_HW3[top : top + down.side])
                yield [strip_HW3[:, left : left + across.side] for left in across.starts]

        evidence_NR = torch.cat(
            [self.evidence(batch)[:, present_1K[0]] for strip in strips() for batch in self._batched(strip)]
        )
        peaks_NR = evidence_NR / evidence_NR.amax(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
        peaks = iter(peaks_NR)
        rows = ([WindowMaps(one) for one in self._windows(strip, present_1K, peaks)] for strip in strips())
        channels = int(present_1K.sum()) + self.labels.decoder
        bands = blended_bands(down, across, rows, channels, softmax=False)
        return complete_bands(bands, size, present_1K, self.labels).numpy()

    @torch.no_grad()
    def evidence(self, images_by_scale: Sequence[Tensor]) -> Tensor:
        """(B, K) float32 on the host: the classifier's probabilities, of logits averaged over the scales."""
        with autocast(self.config.run, self.device):
            logits = [self.network.readout(self.network.features(images)) for images in images_by_scale]
        return torch.stack(logits).float().mean(dim=0).sigmoid().cpu()

    def _batched(self, windows: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Windows (H, W, 3) uint8 of one size in batches, at each scale (B, 3, H_s, W_s) in [0, 1] on the device."""
        size, stride = (windows[0].shape[0], windows[0].shape[1]), self.network.backbone.stride
        sides = [side_in_window(side, size, self.config.maps.tile) for side in self.scales]
        sizes = [scaled_size(*size, side, stride) for side in sides]
        count = max(1, batch_pixels(self.config.run, self.device) // sum(height * width for height, width in sizes))
        for first in range(0, len(windows), count):
            some = windows[first : first + count]
            yield [torch.stack([resize(one, at) for one in some]).to(self.device).float() / 255 for at in sizes]

    def _windows(self, windows: Sequence[Tensor], present_1K: Tensor, peaks: Iterator[Tensor]) -> Iterator[Tensor]:
        """Refined scores (R, h, w) of each window, and with a decoder the background's probability after them."""
        coming = iter(windows)
        for batch in self._batched(windows):
            reading = self.read(batch, present_1K.expand(len(batch[0]), -1))
            for i in range(len(batch[0])):
                window_HW3 = next(coming)
                size = (window_HW3.shape[0], window_HW3.shape[1])
                small_HW3 = reduced(window_HW3, LARGEST_SIDE)
                refined = self.refine([small_HW3], size, reading, [i], peaks_R=next(peaks))
                parts = [refined.scores.values_Rhw]
                yield torch.cat(parts if refined.background_Bhw is None else [*parts, refined.background_Bhw])

    def _read_one(self, image_HW3: NDArray[np.uint8], tags: Sequence[str]) -> Reading:
        if isinstance(tags, str):
            raise TypeError(f"tags are a list of class names, got the string {tags!r}")
        unknown = [tag for tag in tags if tag not in self.classes]
        if unknown:
            raise UsageError(f"'{unknown[0]}' is no class of this network", f"choose among {', '.join(self.classes)}")
        present_BK = torch.tensor([[name in tags for name in self.classes]])
        stride, tensor_HW3 = self.network.backbone.stride, torch.from_numpy(image_HW3)
        height, width = image_HW3.shape[:2]
        sizes = [scaled_size(height, width, side, stride) for side in self.scales]
        scaled = [resize(tensor_HW3, size)[None].to(self.device).float() / 255 for size in sizes]
        return self.read(scaled, present_BK)


def effective_labels(network: Network, section: LabelsSection) -> LabelsSection:
    """The settings as they take effect: only a network with a decoder has one to agree with; see `opening_of`."""
    agreed = section.decoder and network.decoder is not None
    opening = opening_of(section, order="agree-then-refine", agreed=agreed)
    return section.model_copy(update={"decoder": agreed, "opening": opening})
