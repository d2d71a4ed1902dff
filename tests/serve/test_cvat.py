"""`wsss serve cvat`: shapes by CVAT's own types, decoded by its SDK, and checked as its driver does."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wsss.config import Config
from wsss.errors import MachineError, UsageError
from wsss.inference.segmenter import Segmenter
from wsss.models.checkpoint import save_checkpoint
from wsss.models.network import Network
from wsss.serve import cvat

HAS_SDK = importlib.util.find_spec("cvat_sdk") is not None
needs_sdk = pytest.mark.skipif(not HAS_SDK, reason="cvat-sdk is not installed: pip install 'cvat-sdk[masks]'")
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))


@pytest.fixture
def network(small_network: Callable[..., Network]) -> Network:
    """Its decoder predicts all classes."""
    network = small_network()
    torch.manual_seed(2)
    assert network.decoder is not None
    torch.nn.init.normal_(network.decoder.classify.weight, std=3.0)
    return network


@pytest.fixture
def segmenter(network: Network, tiny_config: Callable[..., Config]) -> Segmenter:
    return Segmenter(network, tiny_config(), torch.device("cpu"))


def context(threshold: float | None = None, *, polygons: bool = False) -> Any:
    return SimpleNamespace(frame_name="a.png", conf_threshold=threshold, conv_mask_to_poly=polygons)


def plain_sdk() -> Any:
    """The three functions of CVAT's SDK that are called, with their arguments as the answer."""

    def shape(kind: str) -> Callable[..., Any]:
        return lambda label_id, points, **more: SimpleNamespace(type=kind, label_id=label_id, points=points, **more)

    return SimpleNamespace(
        label_spec=lambda name, id, **more: SimpleNamespace(name=name, id=id, **more),
        DetectionFunctionSpec=lambda labels: SimpleNamespace(labels=labels),
        mask=shape("mask"),
        polygon=shape("polygon"),
    )


def painted(points: list[float]) -> Any:
    """A mask (40, 56) bool of its run lengths, written from CVAT's description."""
    *lengths, left, top, right, bottom = map(int, points)
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    mask_HW = np.zeros((40, 56), bool)
    mask_HW[top : bottom + 1, left : right + 1] = values.reshape(bottom - top + 1, right - left + 1)
    return mask_HW


def test_masks_are_those_of_the_network(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cvat, "require_sdk", plain_sdk)
    function = cvat.CvatFunction(segmenter)
    assert [(label.name, label.id) for label in function.spec.labels] == [("bee", 1), ("ladybird", 2)]
    label_HW = np.zeros((40, 56), np.uint8)
    shapes = function.detect(context(), PHOTO)
    for one in shapes:
        assert not label_HW[painted(one.points)].any()
        label_HW[painted(one.points)] = one.label_id
    prediction = segmenter.predict(PHOTO)
    assert np.array_equal(label_HW, prediction.label_HW)
    assert {(one.label_id, one.score) for one in shapes} == {(k, prediction.certainty()[k]) for k in (1, 2)}

    assert function.detect(context(1.0), PHOTO) == []
    assert len(cvat.CvatFunction(segmenter, min_area=50).detect(context(), PHOTO)) < len(shapes)
    outlines = function.detect(context(polygons=True), PHOTO)
    assert len(outlines) == len(shapes)
    assert all(one.type == "polygon" and len(one.points) >= 8 for one in outlines)


@needs_sdk
@pytest.mark.parametrize("polygons", [False, True])
def test_what_cvat_accepts(segmenter: Segmenter, polygons: bool) -> None:
    from cvat_sdk import models
    from cvat_sdk.auto_annotation import driver
    from cvat_sdk.masks import decode_mask

    function = cvat.CvatFunction(segmenter)
    asked = driver._DetectionFunctionContextImpl(frame_name="a.png", conf_threshold=None, conv_mask_to_poly=polygons)
    shapes = function.detect(asked, PHOTO)
    assert {one.type.value for one in shapes} == {"polygon" if polygons else "mask"}
    if not polygons:
        for one in shapes:
            assert np.array_equal(decode_mask(one.points, image_width=56, image_height=40), painted(one.points))
    labels = [
        models.Label(name=name, id=10 + k, type="any", attributes=[], sublabels=[])
        for k, name in enumerate(("bee", "ladybird"))
    ]
    mapper = driver._AnnotationMapper(
        logging.getLogger(), function.spec.labels, labels, allow_unmatched_labels=False, conv_mask_to_poly=polygons
    )
    mapper.validate_and_remap(shapes, 0)
    assert {one.label_id for one in shapes} == {10, 11}


@needs_sdk
def test_the_file_for_cvat_cli(network: Network, tmp_path: Path, tiny_config: Callable[..., Config]) -> None:
    save_checkpoint(tmp_path / "net.pt", network, tiny_config())
    path = cvat.write_function(tmp_path / "out", tmp_path / "net.pt", device="cpu")
    content: dict[str, Any] = {}
    exec(compile(path.read_text(), path, "exec"), content)
    assert [label.name for label in content["spec"].labels] == ["bee", "ladybird"]
    assert content["detect"](context(), PHOTO)


def test_the_file_is_not_replaced(tmp_path: Path) -> None:
    cvat.write_function(tmp_path, Path("runs/it's"))
    with pytest.raises(UsageError, match="exists"):
        cvat.write_function(tmp_path, Path("runs/seg"))


@pytest.mark.skipif(HAS_SDK, reason="cvat-sdk is installed")
def test_without_the_package(segmenter: Segmenter) -> None:
    with pytest.raises(MachineError, match="cvat-sdk is not installed") as refused:
        cvat.CvatFunction(segmenter)
    assert refused.value.fix == "pip install 'wsss[cvat]'"
