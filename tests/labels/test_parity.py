"""Pseudo labels against the frozen dense recipe of `naive_recipe.py`, bit for bit."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from wsss.config import LabelsSection
from wsss.labels.recipe import complete, label_images, refine_scores
from wsss.maps.present import PresentMaps

spec = importlib.util.spec_from_file_location("naive_recipe", Path(__file__).with_name("naive_recipe.py"))
assert spec is not None
assert spec.loader is not None
naive_recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(naive_recipe)

SIZES = ((48, 64), (33, 70), (64, 32))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    images=st.integers(1, 3),
    classes=st.integers(1, 4),
    size=st.sampled_from(SIZES),
    background=st.sampled_from(["power", "band"]),
    decoder=st.booleans(),
    refine_first=st.booleans(),
    saliency=st.booleans(),
    stride=st.sampled_from([1, 2]),
    opening=st.sampled_from([0, 3, 10]),
)
def test_labels_are_those_of_the_dense_recipe(
    seed: int,
    images: int,
    classes: int,
    size: tuple[int, int],
    background: Literal["power", "band"],
    decoder: bool,
    refine_first: bool,
    saliency: bool,
    stride: int,
    opening: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    grid = (size[0] // 8, size[1] // 8)
    images_B3HW = F.interpolate(torch.rand(images, 3, *grid, generator=generator), size=size, mode="bilinear")
    present_BK = torch.rand(images, classes, generator=generator) < 0.5
    scores_BKhw = torch.rand(images, classes, *grid, generator=generator)
    logits_BCHW = F.interpolate(
        3 * torch.randn(images, classes + 1, *grid, generator=generator), size=size, mode="bilinear"
    )
    saliency_BHW = (255 * torch.rand(images, *size, generator=generator)).byte()
    section = LabelsSection(background=background, opening=opening, pamr_stride=stride, pamr_iterations=3)
    ours = label_images(
        images_B3HW,
        PresentMaps.from_dense(scores_BKhw, present_BK),
        size,
        section,
        log_probabilities_BChw=logits_BCHW if decoder else None,
        order="refine-then-agree" if refine_first else "agree-then-refine",
        saliency_BHW=saliency_BHW if saliency else None,
    )
    for i in range(images):
        expected_HW = naive_recipe.naive_label(
            images_B3HW[i],
            scores_BKhw[i],
            present_BK[i],
            section,
            logits_CHW=logits_BCHW[i] if decoder else None,
            refine_first=refine_first,
            saliency_HW=saliency_BHW[i].float() / 255 if saliency else None,
            opening=0 if decoder and not refine_first else opening,
        )
        assert torch.equal(ours[i], expected_HW)


def test_bands_and_the_batch_change_no_label(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    images_B3HW, present_BK = torch.rand(3, 3, 24, 32), torch.tensor([[True, True], [False, False], [False, True]])
    scores = PresentMaps.from_dense(torch.rand(3, 2, 3, 4), present_BK)
    section = LabelsSection(opening=5, low=0.5, high=0.6)
    refined = refine_scores(images_B3HW, scores, section)
    saliency_BHW = (255 * torch.rand(3, 90, 70)).byte()
    whole = complete(refined, (90, 70), section, saliency_BHW=saliency_BHW)
    alone = [
        complete(refined.select([i]), (90, 70), section, saliency_BHW=saliency_BHW[i : i + 1])[0] for i in range(3)
    ]
    assert torch.equal(whole, torch.stack(alone))
    monkeypatch.setattr("wsss.labels.completion.BAND_VALUES", 900)
    assert torch.equal(complete(refined, (90, 70), section, saliency_BHW=saliency_BHW), whole)
