"""Dense CRF: orientation, present classes only, the missing package."""

import importlib.util
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from wsss.config import CrfSection
from wsss.errors import MachineError
from wsss.labels.bands import BAND_VALUES
from wsss.labels.crf import Crf, crf_probabilities, crf_processes, dense_crf
from wsss.labels.crf_label import crf_label

needs_pydensecrf = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None,
    reason="pydensecrf is not installed: pip install 'wsss[crf]'",
)
ROWS, COLUMNS = 24, 40


def crf_labels(
    image_HW3: NDArray[np.uint8],
    scores_CHW: NDArray[np.float32],
    present_K: NDArray[np.bool_],
    *,
    settings: CrfSection,
    crf: Crf = crf_probabilities,
) -> NDArray[np.uint8]:
    """Of the background and the present classes alone."""
    index_C = np.flatnonzero(np.concatenate(([True], present_K))).astype(np.uint8)
    scores = torch.from_numpy(scores_CHW[index_C])
    size = (image_HW3.shape[0], image_HW3.shape[1])
    return crf_label(image_HW3, scores, torch.from_numpy(index_C), size, settings, crf).numpy()


def object_image(seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A red rectangle, wider than high and off centre, on noisy green; and where it is."""
    generator = np.random.default_rng(seed)
    object_HW = np.zeros((ROWS, COLUMNS), dtype=np.bool_)
    object_HW[4:14, 8:34] = True
    image_HW3 = np.where(object_HW[..., None], (200, 40, 40), (40, 160, 60)) + generator.integers(
        -8, 9, (ROWS, COLUMNS, 3)
    )
    return image_HW3.astype(np.uint8), object_HW


def blurred_scores(object_HW: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scores of the background and one class, near 0 or 1 except at the edges of the object."""
    score_HW = np.full(object_HW.shape, 0.2, dtype=np.float32)
    score_HW[2:17, 5:37] = 0.55
    score_HW[7:11, 14:28] = 0.95
    return np.stack([1 - score_HW, score_HW])


@needs_pydensecrf
@pytest.mark.parametrize("transposed", [False, True])
def test_labels_follow_the_edges_of_wide_and_high_images(transposed: bool) -> None:
    image_HW3, object_HW = object_image()
    scores_CHW = blurred_scores(object_HW)
    if transposed:
        image_HW3, object_HW = image_HW3.transpose(1, 0, 2), object_HW.T
        scores_CHW = scores_CHW.transpose(0, 2, 1)
    before_HW = scores_CHW.argmax(axis=0) == 1
    label_HW = crf_labels(image_HW3, scores_CHW, np.array([True]), settings=CrfSection())
    assert label_HW.dtype == np.uint8
    assert (before_HW != object_HW).mean() > 0.2
    assert np.array_equal(label_HW == 1, object_HW)


@needs_pydensecrf
def test_probabilities_sum_to_one() -> None:
    image_HW3, object_HW = object_image()
    refined_CHW = dense_crf(image_HW3, blurred_scores(object_HW), settings=CrfSection(iterations=3))
    assert refined_CHW.dtype == np.float32
    assert refined_CHW.shape == (2, ROWS, COLUMNS)
    np.testing.assert_allclose(refined_CHW.sum(axis=0), 1.0, rtol=1e-4)


@needs_pydensecrf
def test_without_pairwise_terms_probabilities_stay() -> None:
    """Probabilities are clamped away from 0 and 1, so no logarithm is infinite."""
    image_HW3, object_HW = object_image()
    foreground_HW = object_HW.astype(np.float32) * 0.5 + 0.25
    foreground_HW[0, 0], foreground_HW[0, 1] = 0.0, 1.0
    probabilities_CHW = np.stack([1 - foreground_HW, foreground_HW])
    settings = CrfSection(iterations=2, gaussian_weight=0.0, bilateral_weight=0.0)
    refined_CHW = dense_crf(image_HW3, probabilities_CHW, settings=settings)
    np.testing.assert_allclose(refined_CHW, probabilities_CHW, atol=1e-4)


@needs_pydensecrf
@pytest.mark.parametrize("seed", [0, 1])
def test_present_classes_alone_give_the_labels_of_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    image_HW3, object_HW = object_image(seed)
    present_K = np.array([False, True, False, False, True])
    scores_CHW = np.zeros((6, ROWS, COLUMNS), dtype=np.float32)
    background_HW, first_HW = blurred_scores(object_HW)
    second_HW = 0.1 + 0.3 * generator.random((ROWS, COLUMNS), dtype=np.float32)
    second_HW[18:22, 3:30] = 0.9
    background_HW[18:22, 3:30] = 0.1
    image_HW3[18:22, 3:30] = (40, 40, 220)
    scores_CHW[0], scores_CHW[2], scores_CHW[5] = background_HW, first_HW, second_HW
    settings = CrfSection()
    everything_CHW = dense_crf(image_HW3, scores_CHW / scores_CHW.sum(axis=0), settings=settings)
    label_HW = crf_labels(image_HW3, scores_CHW, present_K, settings=settings)
    assert set(np.unique(label_HW)) == {0, 2, 5}
    assert np.array_equal(label_HW, everything_CHW.argmax(axis=0))


@needs_pydensecrf
def test_scores_of_absent_classes_count_for_nothing() -> None:
    image_HW3, object_HW = object_image()
    scores_CHW = np.insert(blurred_scores(object_HW), 1, 1.0, axis=0)
    label_HW = crf_labels(image_HW3, scores_CHW, np.array([False, True]), settings=CrfSection())
    assert np.array_equal(label_HW, np.where(object_HW, 2, 0))


@needs_pydensecrf
def test_a_process_gives_the_same_labels() -> None:
    image_HW3, object_HW = object_image()
    scores_CHW = np.insert(blurred_scores(object_HW), 1, 1.0, axis=0)
    present_K, settings = np.array([False, True]), CrfSection(iterations=3)
    with crf_processes(1) as processes:
        crf = partial(processes.call, "rectangle")
        there_HW = crf_labels(image_HW3, scores_CHW, present_K, settings=settings, crf=crf)
    assert there_HW.dtype == np.uint8
    assert np.array_equal(there_HW, crf_labels(image_HW3, scores_CHW, present_K, settings=settings))


def test_only_present_classes_are_given_to_the_crf() -> None:
    """The CRF gets the background and the second class; its second channel becomes class 2."""
    image_HW3, object_HW = object_image()
    background_HW, score_HW = blurred_scores(object_HW)
    seen = []

    def crf(image_HW3: NDArray[np.uint8], scores_CHW: NDArray[np.float32], settings: CrfSection) -> NDArray[np.float32]:
        seen.append(scores_CHW)
        return np.stack([~object_HW, object_HW]).astype(np.float32)

    scores_CHW = np.stack([background_HW, np.ones_like(score_HW), score_HW])
    label_HW = crf_labels(image_HW3, scores_CHW, np.array([False, True]), settings=CrfSection(), crf=crf)
    assert np.array_equal(seen, [[background_HW, score_HW]])
    assert np.array_equal(label_HW, 2 * object_HW)


def test_no_present_class_is_all_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    image_HW3, object_HW = object_image()
    label_HW = crf_labels(image_HW3, blurred_scores(object_HW), np.array([False]), settings=CrfSection())
    assert label_HW.shape == (ROWS, COLUMNS)
    assert not label_HW.any()


def test_a_photo_larger_than_the_crf_takes_little_memory() -> None:
    """Indexing by the whole label map would make 8 bytes of each pixel; classes keep their indices."""

    class Largest(TorchDispatchMode):
        bytes = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                self.bytes = max(self.bytes, made.numel() * made.element_size())
            return made

    scores_Chw = torch.zeros(4, 1, 4)
    scores_Chw[range(4), 0, range(4)] = 1.0
    size = (3000, 4000)
    with Largest() as largest:
        label_HW = crf_label(
            np.zeros((1, 4, 3), np.uint8),
            scores_Chw,
            torch.tensor([0, 1, 3, 20], dtype=torch.uint8),
            size,
            CrfSection(),
            lambda image, scores, settings: scores,
        )
    assert label_HW[0, ::1000].tolist() == [0, 1, 3, 20]
    assert largest.bytes <= 4 * BAND_VALUES


def test_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    image_HW3, object_HW = object_image()
    with pytest.raises(MachineError) as caught:
        dense_crf(image_HW3, blurred_scores(object_HW), settings=CrfSection())
    assert caught.value.problem == "the dense CRF needs pydensecrf, which is not installed"
    assert caught.value.fix == "pip install 'wsss[crf]'"
    with pytest.raises(MachineError, match="needs pydensecrf"):
        crf_processes(1)
    assert crf_processes(0).count == 0
