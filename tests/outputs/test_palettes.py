import numpy as np
import pytest
from numpy.typing import NDArray

from wsss.data.masks import PALETTE
from wsss.errors import UsageError
from wsss.outputs.palettes import LEAST_CHROMA, VISIONS, as_seen, palette_named, palette_of


def nearest(colour_N3: NDArray[np.uint8], vision: NDArray[np.float64]) -> float:
    """Smallest distance in CIE Lab of two of the colours, as a kind of vision sees them."""
    lab_N3 = as_seen(colour_N3, vision)
    distance_NN = np.linalg.norm(lab_N3[:, None] - lab_N3[None], axis=2)
    return float(distance_NN[~np.eye(len(lab_N3), dtype=bool)].min())


def test_lab_of_known_colours() -> None:
    """CIE Lab of white, black and pure red, from any colorimetry table."""
    colour_N3 = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]], dtype=np.uint8)
    expected = [[100, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]]
    assert np.allclose(as_seen(colour_N3, VISIONS[0]), expected, atol=0.1)


@pytest.mark.parametrize("vision", VISIONS)
def test_grey_stays_grey_to_every_vision(vision: NDArray[np.float64]) -> None:
    grey_N3 = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    assert np.abs(as_seen(grey_N3, vision)[:, 1:]).max() < 0.5


@pytest.mark.parametrize("count", [4, 7, 20])
def test_twenty_classes_are_told_apart_with_every_vision(count: int) -> None:
    """At least 15 in CIE Lab, where 2 can be seen side by side; the VOC palette is below that in the first four."""
    palette_N3 = palette_of("colorblind")[1 : count + 1]
    assert min(nearest(palette_N3, vision) for vision in VISIONS) > 15
    assert min(nearest(PALETTE[1 : count + 1], vision) for vision in VISIONS) < 5


def test_no_class_looks_like_a_grey_photo() -> None:
    chroma_N = np.hypot(*as_seen(palette_of("colorblind")[1:255], VISIONS[0])[:, 1:].T)
    assert chroma_N.min() >= LEAST_CHROMA


def test_every_class_has_a_colour() -> None:
    palette_N3 = palette_of("colorblind")
    assert palette_N3.shape == (256, 3)
    assert palette_N3[0].tolist() == [0, 0, 0]
    assert len(np.unique(palette_N3[1:101], axis=0)) == 100
    assert (palette_of("voc") == PALETTE).all()


def test_another_name_is_refused() -> None:
    assert palette_named("colorblind") == "colorblind"
    with pytest.raises(UsageError, match="no palette 'rainbow'; there are voc, colorblind"):
        palette_named("rainbow")
