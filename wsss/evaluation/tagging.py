"""Metrics of a classifier against image-level labels: average precision and F1.

Shape suffixes: N images, K foreground classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.evaluation.confusion import Values, as_array


def average_precision(scores_NK: Values, present_NK: Values, known_NK: Values | None = None) -> NDArray[np.float64]:
    """Area under the precision-recall steps of each class: the sum of precision times gain in recall.

    Images of equal score form one step, so their order does not matter.

    Args:
        scores_NK: scores or logits, any monotone scale.
        present_NK: bool or 0/1, the tags.
        known_NK: bool or 0/1, which of them are known; the others take no part. None: all.

    Returns:
        (K,) in [0, 1], NaN for a class that no image has.

    Raises:
        ValueError: shapes differ or a score is NaN.
    """
    scores_NK, present_NK = _scores_and_tags(scores_NK, present_NK)
    known_NK = _known(known_NK, present_NK)
    columns = zip(scores_NK.T, present_NK.T, known_NK.T, strict=True)
    return np.array(
        [_class_precision(scores_N[known_N], present_N[known_N]) for scores_N, present_N, known_N in columns]
    )


def tag_map(scores_NK: Values, present_NK: Values, known_NK: Values | None = None) -> float:
    """Mean average precision in [0, 1] over the classes that an image has; NaN if there is none."""
    precision_K = average_precision(scores_NK, present_NK, known_NK)
    known = precision_K[~np.isnan(precision_K)]
    return float(known.mean()) if known.size else float("nan")


def tag_f1(scores_NK: Values, present_NK: Values, threshold: float = 0.5, known_NK: Values | None = None) -> float:
    """Micro F1 in [0, 1] of the tags ``score > threshold``: all (image, class) pairs have equal weight.

    NaN if there is neither a true nor a predicted tag; ValueError if shapes differ or a score is NaN.
    """
    scores_NK, present_NK = _scores_and_tags(scores_NK, present_NK)
    known_NK = _known(known_NK, present_NK)
    found_NK, present_NK = (scores_NK > threshold) & known_NK, present_NK & known_NK
    relevant = int(found_NK.sum()) + int(present_NK.sum())
    return 2 * int((found_NK & present_NK).sum()) / relevant if relevant else float("nan")


def _class_precision(scores_N: NDArray[Any], present_N: NDArray[np.bool_]) -> float:
    positives = int(present_N.sum())
    if positives == 0:
        return float("nan")
    order = np.argsort(-scores_N, kind="stable")
    ranked_N, hits_N = scores_N[order], np.cumsum(present_N[order])
    last_of_tie = np.flatnonzero(np.append(ranked_N[1:] != ranked_N[:-1], True))
    hits = hits_N[last_of_tie]
    return float(np.sum(hits / (last_of_tie + 1) * np.diff(hits, prepend=0)) / positives)


def _known(known_NK: Values | None, present_NK: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which tags are known, in the shape of the tags."""
    if known_NK is None:
        return np.ones_like(present_NK)
    known = as_array(known_NK).astype(np.bool_)
    if known.shape != present_NK.shape:
        raise ValueError(f"expected known tags of shape {present_NK.shape}, got {known.shape}")
    return known


def _scores_and_tags(scores_NK: Values, present_NK: Values) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    scores_NK, present_NK = as_array(scores_NK), as_array(present_NK).astype(np.bool_)
    if scores_NK.ndim != 2 or scores_NK.shape != present_NK.shape:
        raise ValueError(f"expected (N, K) scores and tags, got {scores_NK.shape} and {present_NK.shape}")
    scores_NK = scores_NK.astype(np.promote_types(scores_NK.dtype, np.float32), copy=False)
    if np.isnan(scores_NK).any():
        raise ValueError("the scores hold NaN")
    return scores_NK, present_NK
