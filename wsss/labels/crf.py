"""Fully connected conditional random field: class probabilities that follow colour and position.

After "Efficient inference in fully connected CRFs with Gaussian edge potentials" (Kraehenbuehl and Koltun, NIPS 2011),
through the optional package pydensecrf. It holds Python's global interpreter lock, so that only processes
(`crf_processes`) make it faster, not threads.

Shape suffixes: C classes with the background first, K foreground classes, H rows, W columns, 3 channels RGB.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsss.config import CrfSection
from wsss.errors import MachineError
from wsss.processes import Processes

MIN_PROBABILITY = 1e-5
"""Smallest probability of a class, so that its negative logarithm, the unary energy, stays finite."""


def require_crf(otherwise: str = "") -> None:
    """Raise an error, before long work, where the optional package is missing.

    Args:
        otherwise: what to do where it cannot be installed; it is added to the fix.

    Raises:
        MachineError: pydensecrf is not installed.
    """
    try:
        import pydensecrf.densecrf  # noqa: F401
    except ImportError as error:
        fix = "pip install 'wsss[crf]'" + (f", or {otherwise}" if otherwise else "")
        raise MachineError("the dense CRF needs pydensecrf, which is not installed", fix) from error


def dense_crf(
    image_HW3: NDArray[np.uint8], probabilities_CHW: NDArray[np.float32], *, settings: CrfSection
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


Crf = Callable[[NDArray[np.uint8], NDArray[np.float32], CrfSection], NDArray[np.float32]]
"""`crf_probabilities`, or a function that runs it in another process."""


def crf_probabilities(
    image_HW3: NDArray[np.uint8], scores_CHW: NDArray[np.float32], settings: CrfSection
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
) -> Processes[[NDArray[np.uint8], NDArray[np.float32], CrfSection], NDArray[np.float32]]:
    """``count`` processes that run `crf_probabilities`; with 0 it runs in the process that calls it.

    Raises:
        MachineError: pydensecrf is not installed.
    """
    if count:
        require_crf()
    return Processes(crf_probabilities, count)
