"""Fully connected conditional random field: class probabilities that follow colour and position.

After "Efficient inference in fully connected CRFs with Gaussian edge potentials" (Kraehenbuehl and Koltun, NIPS 2011),
through the optional package pydensecrf. It holds Python's global interpreter lock, so that only processes
(`crf_processes`) make it faster, not threads.

Shape suffixes: C classes with the background first, K foreground classes, H rows, W columns, 3 channels RGB.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsss.errors import MachineError
from wsss.pool import Processes

MIN_PROBABILITY = 1e-5
"""Smallest probability of a class, so that its negative logarithm, the unary energy, stays finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrfSettings:
    """Strength and reach of the two pairwise terms; the defaults are the usual ones for PASCAL VOC.

    Attributes:
        iterations: mean-field updates.
        gaussian_sxy: reach of the smoothness term, pixels.
        gaussian_weight: its strength.
        bilateral_sxy: reach of the appearance term, pixels.
        bilateral_srgb: its reach in colour, 8-bit levels.
        bilateral_weight: its strength.
        side: photos of a larger area than this squared, in pixels, are refined at that area.
    """

    iterations: int = 10
    gaussian_sxy: float = 3.0
    gaussian_weight: float = 3.0
    bilateral_sxy: float = 80.0
    bilateral_srgb: float = 13.0
    bilateral_weight: float = 10.0
    side: int = 1024


def require_crf() -> None:
    """Raise an error, before long work, where the optional package is missing.

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


Crf = Callable[[NDArray[np.uint8], NDArray[np.float32], CrfSettings], NDArray[np.float32]]
"""`crf_probabilities`, or a function that runs it in another process."""


def crf_probabilities(
    image_HW3: NDArray[np.uint8], scores_CHW: NDArray[np.float32], settings: CrfSettings
) -> NDArray[np.float32]:
    """Probabilities of the given classes at each pixel after the dense CRF: (C, H, W) float32.

    Args:
        image_HW3: RGB, 0 to 255.
        scores_CHW: in [0, 1]; they need not sum to 1.
        settings: of the pairwise terms.

    Raises:
        MachineError: pydensecrf is not installed.
    """
    scores_CHW = np.maximum(scores_CHW, MIN_PROBABILITY)
    probabilities_CHW = scores_CHW / scores_CHW.sum(axis=0, keepdims=True)
    return dense_crf(image_HW3, probabilities_CHW, settings=settings)


def crf_processes(
    count: int,
) -> Processes[[NDArray[np.uint8], NDArray[np.float32], CrfSettings], NDArray[np.float32]]:
    """``count`` processes that run `crf_probabilities`; with 0 it runs in the process that calls it.

    Raises:
        MachineError: pydensecrf is not installed.
    """
    if count:
        require_crf()
    return Processes(crf_probabilities, count)


def crf_labels(
    image_HW3: NDArray[np.uint8],
    scores_CHW: NDArray[np.float32],
    present_K: NDArray[np.bool_],
    *,
    settings: CrfSettings,
    crf: Crf = crf_probabilities,
) -> NDArray[np.uint8]:
    """Label map of the dense CRF over the background and the present classes alone.

    Absent classes would end with a probability near 0 and take as much time as present ones.

    Args:
        image_HW3: RGB, 0 to 255.
        scores_CHW: background score, then the K class scores, in [0, 1]; they need not sum to 1.
        present_K: bool, the image-level labels.
        settings: of the pairwise terms.
        crf: runs `crf_probabilities`, here or in another process.

    Returns:
        (H, W) uint8 class indices; all background, without running anything, where no class is present.

    Raises:
        MachineError: pydensecrf is not installed.
    """
    index_C = np.flatnonzero(np.concatenate(([True], present_K))).astype(np.uint8)
    if len(index_C) == 1:
        return np.zeros(scores_CHW.shape[1:], dtype=np.uint8)
    label_HW: NDArray[np.uint8] = index_C[crf(image_HW3, scores_CHW[index_C], settings).argmax(axis=0)]
    return label_HW
