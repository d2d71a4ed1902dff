"""No NaN and no infinity for any images, tags and scores; the same labels for any batch size and number of workers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from wsss.config import Config, LabelsSection, Method
from wsss.data.dataset import open_data
from wsss.data.masks import IGNORE_INDEX, read_mask
from wsss.data.scenes import SceneSettings, write_scenes
from wsss.inference.labelling import make_pseudo_labels
from wsss.labels.completion import PowerBackground
from wsss.labels.pamr import pamr
from wsss.labels.recipe import Refined, complete, refine_scores
from wsss.maps.generate import multiscale_scores
from wsss.maps.present import PresentMaps
from wsss.maps.recorder import MapSettings
from wsss.maps.scores import normalise_scores
from wsss.reporting import Silent
from wsss.training.dense_energy import dense_energy
from wsss.training.losses import balanced_cross_entropy, classification_loss, saliency_loss
from wsss.training.start import train_segmenter

EXAMPLES = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
METHODS: list[Method] = [
    "getam",
    "attention-gradient",
    "gradcam",
    "rollout",
    "chefer",
    "legrad",
    "attention",
    "cam",
    "objects",
]
IMAGES = ["noise", "black", "white", "grey", "edge"]
SCORES = ["random", "zero", "one", "tiny", "same"]


def finite(*tensors: Tensor) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def image(kind: str, height: int, width: int) -> Tensor:
    """(3, H, W) in [0, 1]."""
    image_3HW = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    if kind == "edge":
        image_3HW = (image_3HW > 0.5).float()
    return (
        image_3HW
        if kind in ("noise", "edge")
        else torch.full_like(image_3HW, {"black": 0, "white": 1, "grey": 0.5}[kind])
    )


def scores(kind: str, classes: int, height: int, width: int) -> Tensor:
    """(K, H, W) in [0, 1]."""
    if kind in ("random", "tiny"):
        scores_KHW = torch.rand(classes, height, width, generator=torch.Generator().manual_seed(1))
        return scores_KHW * (1e-38 if kind == "tiny" else 1)
    return torch.full((classes, height, width), {"zero": 0.0, "one": 1.0, "same": 0.3}[kind])


sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))
presences = st.lists(st.booleans(), min_size=3, max_size=3)


@EXAMPLES
@given(sizes, st.sampled_from(IMAGES), presences, st.sampled_from(METHODS), st.booleans())
@example((1, 1), "black", [False] * 3, "getam", True)
@example((8, 8), "white", [True] * 3, "cam", False)
def test_class_maps(
    small_network: Callable[..., Any],
    size: tuple[int, int],
    kind: str,
    present: list[bool],
    method: Method,
    spread: bool,
) -> None:
    """Also for images of one patch and of one colour, with all tags or none."""
    network = small_network(classes=("bee", "fly", "ant"), decoder=False, depth=2)
    maps = MapSettings(method=method, start_layer=0, spread=int(spread), gamma=0.5)
    present_BK = torch.tensor([present])
    _, scores = multiscale_scores(network, [image(kind, *size)[None]], present_BK, maps, flip=True)
    scores_BKhw = scores.dense()
    assert finite(scores_BKhw)
    assert ((scores_BKhw >= 0) & (scores_BKhw <= 1)).all()
    assert not scores_BKhw[:, ~torch.tensor(present)].any()


@EXAMPLES
@given(
    sizes,
    st.sampled_from(IMAGES),
    st.sampled_from(SCORES),
    presences,
    st.integers(1, 3),
    st.sampled_from(["power", "band"]),
)
@example((1, 1), "black", "zero", [True] * 3, 1, "power")
@example((3, 20), "grey", "tiny", [False] * 3, 2, "band")
def test_from_scores_to_labels(
    size: tuple[int, int], kind: str, level: str, present: list[bool], stride: int, background: Any
) -> None:
    present_K, image_3HW = torch.tensor(present), image(kind, *size)
    scores_KHW = scores(level, 3, *size)
    section = LabelsSection(background=background, pamr_iterations=3, pamr_stride=stride, opening=2)
    maps = PresentMaps.from_dense(scores_KHW[None], present_K[None])
    coarse = PresentMaps.from_dense(scores(level, 3, 2, 1)[None], present_K[None])
    found = [Refined(normalise_scores(maps), None, 2), refine_scores(image_3HW[None], maps, section)]
    for logits_CHW in (None, torch.zeros(4, *size), torch.randn(4, *size) * 100):
        log_BCHW = None if logits_CHW is None else logits_CHW[None].log_softmax(dim=1)
        found.append(refine_scores(image_3HW[None], coarse, section, log_probabilities_BChw=log_BCHW))
    for refined in found:
        for values in (refined.scores.values_Rhw, refined.background_Bhw):
            if values is not None and values.numel():
                assert finite(values)
                assert values.min() >= 0
                assert values.max() <= 1 + 1e-5
        for saliency_BHW in (None, torch.zeros(1, *size), torch.ones(1, *size)):
            label_BHW = complete(refined, size, section, saliency_BHW=saliency_BHW)
            allowed = {0, IGNORE_INDEX, *(k + 1 for k in range(3) if present[k])}
            assert {*np.unique(label_BHW).tolist()} <= allowed


@EXAMPLES
@given(sizes, st.sampled_from(IMAGES), st.sampled_from(SCORES))
def test_pamr_keeps_scores_in_their_range(size: tuple[int, int], kind: str, level: str) -> None:
    scores_BKHW = scores(level, 2, *size)[None]
    maps = PresentMaps.from_dense(scores_BKHW, torch.ones(1, 2, dtype=torch.bool))
    refined_BKHW = pamr(image(kind, *size)[None], maps, iterations=4, dilations=(1, 2, 30)).dense()
    assert finite(refined_BKHW)
    assert refined_BKHW.min() >= scores_BKHW.min() - 1e-5
    assert refined_BKHW.max() <= scores_BKHW.max() + 1e-5


def test_a_background_score_of_any_best_score_is_finite() -> None:
    assert finite(PowerBackground(exponent=1000.0).score(torch.tensor([0.0, 1e-38, 1.0])))
    assert finite(PowerBackground(exponent=1e-3).score(torch.tensor([0.0, 1.0])))


LABELS = ["ignored", "background", "foreground", "one pixel", "mixed"]


def label(kind: str, size: tuple[int, int]) -> Tensor:
    label_HW = torch.full(size, IGNORE_INDEX, dtype=torch.uint8)
    if kind == "one pixel":
        label_HW[0, 0] = 1
    elif kind == "mixed":
        label_HW = torch.randint(0, 3, size, generator=torch.Generator().manual_seed(2)).byte()
    elif kind != "ignored":
        label_HW[:] = 0 if kind == "background" else 2
    return label_HW


@EXAMPLES
@given(
    sizes,
    st.sampled_from(IMAGES),
    st.lists(st.sampled_from(LABELS), min_size=1, max_size=3),
    st.sampled_from([1, 1e4, 0]),
)
@example((1, 1), "black", ["ignored"], 1)
@example((5, 4), "white", ["ignored", "ignored"], 1e4)
@example((5, 4), "noise", ["ignored", "one pixel"], 1e4)
def test_losses_and_their_gradients(size: tuple[int, int], kind: str, labels: list[str], level: float) -> None:
    label_BHW = torch.stack([label(one, size) for one in labels])
    images_B3HW = torch.stack([image(kind, *size)] * len(labels))
    generator = torch.Generator().manual_seed(3)
    logits_BCHW = (level * torch.randn(len(labels), 3, *size, generator=generator)).requires_grad_()
    valid_BHW = label_BHW != IGNORE_INDEX
    logits_BK = (level * torch.randn(len(labels), 3, generator=generator)).requires_grad_()
    for loss, leaf in (
        (balanced_cross_entropy(logits_BCHW, label_BHW), logits_BCHW),
        (saliency_loss(logits_BCHW, (label_BHW == 1).float()), logits_BCHW),
        (dense_energy(images_B3HW, logits_BCHW.softmax(dim=1), valid_BHW=valid_BHW), logits_BCHW),
        (classification_loss(logits_BK, torch.zeros(len(labels), 3, dtype=torch.bool)), logits_BK),
    ):
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert finite(loss, gradient)
    if {*labels} == {"ignored"}:
        assert float(balanced_cross_entropy(logits_BCHW.detach(), label_BHW)) == 0


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten scenes of five sizes."""
    root = tmp_path_factory.mktemp("shapes") / "data"
    sizes = ((40, 40), (40, 56), (56, 40), (32, 90), (33, 47))
    write_scenes(root, train=10, val=1, seed=3, settings=SceneSettings(classes=("bee", "ladybird"), sizes=sizes))
    return root


def made(out: Path, network: Any, config: Config, root: Path) -> dict[str, np.ndarray[Any, Any]]:
    tagged = open_data(root, split="train")
    make_pseudo_labels(network, tagged, out, config, Silent(), device=torch.device("cpu"), checkpoint_sha256="0" * 64)
    return {record.name: read_mask(out / "labels" / f"{record.name}.png") for record in tagged.records}


@pytest.mark.parametrize("decoder", [False, True])
def test_labels_do_not_depend_on_batches_or_workers(
    shapes: Path, tmp_path: Path, tiny_config: Any, small_network: Callable[..., Any], decoder: bool
) -> None:
    network = small_network(decoder=decoder)
    first: dict[str, np.ndarray[Any, Any]] = {}
    for batch_size, workers in ((1, 0), (3, 0), (8, 2)):
        config = tiny_config(maps__batch_size=batch_size, run__workers=workers, maps__scales=[32, 48], maps__flip=True)
        labels = made(tmp_path / "out", network, config, shapes)
        shutil.rmtree(tmp_path / "out")
        first = first or labels
        pixels = sum(label_HW.size for label_HW in labels.values())
        other = sum(int((labels[name] != first[name]).sum()) for name in first)
        assert labels.keys() == first.keys()
        assert other <= 1e-4 * pixels
    values = np.unique(np.concatenate([label_HW.ravel() for label_HW in first.values()]))
    assert len(values) > 1, "the labels must have more than one value"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Images of one colour, of one pixel and of one row, with all tags or none."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for name, size, colour in (
        ("black", (40, 30), 0),
        ("white", (8, 8), 255),
        ("point", (1, 1), 99),
        ("line", (90, 1), 7),
    ):
        Image.new("RGB", size, (colour,) * 3).save(root / "images" / f"{name}.png")
    (root / "classes.txt").write_text("bee\nladybird\n")
    (root / "tags.csv").write_text(
        "image,labels,split\nblack,,train\nwhite,bee;ladybird,train\npoint,bee,train\nline,,train\n"
    )
    return root


def test_labels_of_odd_images(odd: Path, tmp_path: Path, tiny_config: Any, small_network: Callable[..., Any]) -> None:
    for decoder in (False, True):
        labels = made(tmp_path / f"out{decoder}", small_network(decoder=decoder), tiny_config(), odd)
        shapes = {name: label_HW.shape for name, label_HW in labels.items()}
        assert shapes == {"black": (30, 40), "white": (8, 8), "point": (1, 1), "line": (1, 90)}
        assert {*np.unique(labels["white"])} <= {0, 1, 2, IGNORE_INDEX}
        for name in ("black", "line"):
            assert {*np.unique(labels[name])} <= {0, IGNORE_INDEX}


def test_training_on_odd_images(odd: Path, tmp_path: Path, tiny_config: Any) -> None:
    """End to end: class maps, refinement, pseudo labels and every loss, with double backward."""
    config = tiny_config(
        data__root=odd,
        segment__batch_size=2,
        segment__cls_share=0.0,
        segment__maps_share=0.5,
        segment__weight_energy=1e-3,
    )
    network = train_segmenter(config, tmp_path / "run", Silent())
    assert finite(*network.parameters())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    figures = [value for row in rows for value in row.values()]
    assert len(figures) > 3
    assert None not in figures  # None stands for a figure that is not finite
