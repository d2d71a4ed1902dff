"""Fully connected conditional random field: class probabilities that follow colour and position.

After "Efficient inference in fully connected CRFs with Gaussian edge potentials" (Kraehenbuehl and Koltun,
NIPS 2011), through the optional package pydensecrf. It holds the interpreter lock: `crf_processes`, no threads.

Shape suffixes: C classes with the background first, K foreground classes, H rows, W columns, 3 channels RGB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from wsss.config import CrfSection
from wsss.errors import MachineError
from wsss.processes import Processes

MIN_PROBABILITY = 1e-5
"""Smallest probability of a class: no pixel is so sure that its neighbours cannot change its mind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrfSettings:
    """Strength and reach of the two pairwise terms; the defaults are those usual for PASCAL VOC.

    Attributes:
        iterations: mean-field updates.
        gaussian_sxy: reach of the smoothness term, pixels.
        gaussian_weight: its strength.
        bilateral_sxy: reach of the appearance term, pixels.
        bilateral_srgb: its reach in colour, 8-bit levels.
        bilateral_weight: its strength.
    """

    iterations: int = 10
    gaussian_sxy: float = 3.0
    gaussian_weight: float = 3.0
    bilateral_sxy: float = 80.0
    bilateral_srgb: float = 13.0
    bilateral_weight: float = 10.0

    @classmethod
    def of(cls, section: CrfSection) -> CrfSettings:
        """The settings of a config."""
        return cls(**section.model_dump(include={field.name for field in fields(cls)}))


def require_crf() -> None:
    """Say at once, before long work, that the optional package is missing.

    Raises:
        MachineError: pydensecrf is not installed.
    """
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError as error:
        raise MachineError(
            "the dense CRF needs pydensecrf, which is not installed", "pip install 'wsss[crf]'"
        ) from error


def dense_crf(
    image_HW3: NDArray[np.uint8], probabilities_CHW: NDArray[np.float32], *, settings: CrfSettings
) -> NDArray[np.float32]:
    """Refine class probabilities along the edges of an image.

    Args:
        image_HW3: RGB, 0 to 255.
        probabilities_CHW: of each class at each pixel, in [0, 1].
        settings: of the pairwise terms.

    Returns:
        (C, H, W) float32; the probabilities of a pixel sum to 1.

    Raises:
        MachineError: pydensecrf is not installed.
    """
    require_crf()
    from pydensecrf.densecrf import DenseCRF2D

    classes, rows, columns = probabilities_CHW.shape
    unary_CP = -np.log(np.maximum(probabilities_CHW, MIN_PROBABILITY)).reshape(classes, -1)
    crf = DenseCRF2D(columns, rows, classes)  # width first
    crf.setUnaryEnergy(np.ascontiguousarray(unary_CP, dtype=np.float32))
    crf.addPairwiseGaussian(sxy=settings.gaussian_sxy, compat=settings.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=settings.bilateral_sxy,
        srgb=settings.bilateral_srgb,
        rgbim=np.ascontiguousarray(image_HW3),
        compat=settings.bilateral_weight,
    )
    refined = np.array(crf.inference(settings.iterations), dtype=np.float32)
    return refined.reshape(classes, rows, columns)


Crf = Callable[[NDArray[np.uint8], NDArray[np.float32], CrfSettings], NDArray[np.uint8]]
"""`crf_ranks`, or a function that has it run elsewhere."""


def crf_ranks(
    image_HW3: NDArray[np.uint8], scores_CHW: NDArray[np.float32], settings: CrfSettings
) -> NDArray[np.uint8]:
    """The likeliest of the given classes at each pixel after the dense CRF: (H, W) uint8, 0 is the first.

    Args:
        image_HW3: RGB, 0 to 255.
        scores_CHW: in [0, 1]; they need not sum to 1.
        settings: of the pairwise terms.

    Raises:
        MachineError: pydensecrf is not installed.
    """
    scores_CHW = np.maximum(scores_CHW, MIN_PROBABILITY)
    probabilities_CHW = scores_CHW / scores_CHW.sum(axis=0, keepdims=True)
    refined_CHW = dense_crf(image_HW3, probabilities_CHW, settings=settings)
    rank_HW: NDArray[np.uint8] = refined_CHW.argmax(axis=0).astype(np.uint8)
    return rank_HW


def crf_processes(
    count: int,
) -> Processes[[NDArray[np.uint8], NDArray[np.float32], CrfSettings], NDArray[np.uint8]]:
    """So many processes that run `crf_ranks`; with 0 it runs where it is called.

    Raises:
        MachineError: pydensecrf is not installed.
    """
    if count:
        require_crf()
    return Processes(crf_ranks, count)


def crf_labels(
    image_HW3: NDArray[np.uint8],
    scores_CHW: NDArray[np.float32],
    present_K: NDArray[np.bool_],
    *,
    settings: CrfSettings,
    crf: Crf = crf_ranks,
) -> NDArray[np.uint8]:
    """Label map of the dense CRF over the background and the present classes alone.

    Absent classes would end with a probability near 0 and cost their full share of the time.

    Args:
        image_HW3: RGB, 0 to 255.
        scores_CHW: background score, then the K class scores, in [0, 1]; they need not sum to 1.
        present_K: bool, the image-level labels.
        settings: of the pairwise terms.
        crf: where it runs.

    Returns:
        (H, W) uint8 class indices; all background, without running anything, where no class is present.

    Raises:
        MachineError: pydensecrf is not installed.
    """
    index_C = np.flatnonzero(np.concatenate(([True], present_K))).astype(np.uint8)
    if len(index_C) == 1:
        return np.zeros(scores_CHW.shape[1:], dtype=np.uint8)
    label_HW: NDArray[np.uint8] = index_C[crf(image_HW3, scores_CHW[index_C], settings)]
    return label_HW
