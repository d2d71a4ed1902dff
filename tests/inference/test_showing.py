"""The sheet of one picture: which maps it has, and how a score is coloured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from wsss.errors import UsageError
from wsss.inference.labeller import Labeller
from wsss.inference.showing import HEAT_WEIGHT, METHODS, heat, likely_classes, settings_to_show, show_maps
from wsss.models.network import Network
from wsss.reporting import Silent

CPU = torch.device("cpu")


def test_a_map_is_coloured_by_its_scores() -> None:
    """The ends of viridis, (68, 1, 84) and (253, 231, 37), over black."""
    score_hw = np.array([[0.0, 1.0]], dtype=np.float32)
    drawn_HW3 = heat(np.zeros((1, 2, 3), dtype=np.uint8), score_hw)
    expected = HEAT_WEIGHT * np.array([[68, 1, 84], [253, 231, 37]])
    assert np.abs(drawn_HW3[0] - expected).max() <= 2


def test_rows_of_the_sheet(tiny_config: Any) -> None:
    config = tiny_config(maps__method="cam", maps__start_layer=1)
    assert [name for name, _ in settings_to_show(config, 3, layers=False, methods=False)] == ["cam"]
    rows = settings_to_show(config, 3, layers=True, methods=True)
    assert [one.maps.start_layer for _, one in rows[1:4]] == [0, 1, 2]
    assert {one.maps.method for _, one in rows} == set(METHODS)
    assert {one.maps.start_layer for _, one in rows[4:]} == {1}
    assert [name for name, _ in rows[:4]] == ["cam", "from block 0", "from block 1", "from block 2"]


@pytest.mark.parametrize(("bias", "expected"), [([9, 9], ["bee", "ladybird"]), ([-9, -5], ["ladybird"])])
def test_classes_that_the_network_finds(
    small_network: Callable[..., Network], tiny_config: Any, bias: list[float], expected: list[str]
) -> None:
    """Both where both are likely; the likeliest where none is."""
    network = small_network()
    labeller = Labeller(network, tiny_config(), CPU)
    labeller.evidence = lambda images: torch.tensor([bias]).sigmoid()  # type: ignore[method-assign]
    assert likely_classes(labeller, np.zeros((40, 56, 3), dtype=np.uint8)) == expected


@pytest.mark.parametrize("decoder", [True, False])
def test_a_sheet_is_drawn(small_network: Callable[..., Network], tiny_config: Any, decoder: bool) -> None:
    image_HW3 = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    network = small_network(decoder=decoder)
    options: dict[str, Any] = {"device": CPU, "tags": ["bee", "ladybird", "bee"]}
    one_HW3, drawn = show_maps(network, image_HW3, tiny_config(), Silent(), **options)
    assert drawn == ["bee", "ladybird"]
    many_HW3, _ = show_maps(network, image_HW3, tiny_config(), Silent(), layers=True, methods=True, **options)
    assert many_HW3.shape[0] > 3 * one_HW3.shape[0]
    with pytest.raises(UsageError, match="'zebra' is no class"):
        show_maps(network, image_HW3, tiny_config(), Silent(), device=CPU, tags=["zebra"])
