"""The backbone: weights that are loaded or refused, names, sizes, prefix tokens."""

from __future__ import annotations

import gc
import os
import pickle
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from wsss.errors import DataError, MachineError, UsageError
from wsss.models.backbone import Backbone, plain_transformers, read_weights, resample_bicubic

VIT = {"patch_size": 8, "img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}
PREFIX = {
    "vit_base_patch16_siglip_gap_224": (0, False),
    "vit_tiny_patch16_224": (1, True),
    "deit_tiny_distilled_patch16_224": (2, True),
    "vit_medium_patch16_reg4_gap_256": (4, False),  # registers alone, normalised after the pool
    "vit_small_patch14_reg4_dinov2": (5, True),
}
"""Number of prefix tokens, and whether the first of them is a class token."""


def small(name: str = "vit_tiny_patch16_224", seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return Backbone(name, overrides=VIT)


def weights_with_head(seed: int = 1) -> dict[str, Tensor]:
    """Content of a weights file: another initialisation, with an ImageNet classifier."""
    state = {key: value.clone() for key, value in small(seed=seed).vit.state_dict().items()}
    return {**state, "head.weight": torch.ones(1000, 24), "head.bias": torch.ones(1000)}


@pytest.mark.parametrize("wrapped", ["", "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_are_read_and_the_classifier_is_left_out(tmp_path: Path, suffix: str, wrapped: str) -> None:
    path, state = tmp_path / f"weights{suffix}", weights_with_head()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({wrapped: state, "epoch": 3} if wrapped else state, path)
    backbone = small(seed=0)
    backbone.load(str(path))
    for key, value in backbone.vit.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_weights_that_do_not_fit_name_the_first_keys(tmp_path: Path) -> None:
    state = weights_with_head()
    del state["cls_token"]
    for i in range(5):
        state[f"stem.{i}"] = torch.zeros(1)
    state["norm.weight"] = torch.zeros(7)
    save_file(state, tmp_path / "weights.safetensors")
    backbone = small()
    before = {key: value.clone() for key, value in backbone.vit.state_dict().items()}
    with pytest.raises(DataError) as caught:
        backbone.load(str(tmp_path / "weights.safetensors"))
    problem = caught.value.problem
    assert "weights.safetensors does not fit the backbone vit_tiny_patch16_224" in problem
    assert "missing cls_token;" in problem
    assert "unexpected stem.0, stem.1, stem.2 and 2 more" in problem
    assert "norm.weight is (7,), expected (24,)" in problem
    assert "head" not in problem
    assert all(torch.equal(value, before[key]) for key, value in backbone.vit.state_dict().items())


def test_weights_of_a_missing_broken_or_odd_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such weights file"):
        small().load(str(tmp_path / "none.pth"))
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as weights"):
        small().load(str(tmp_path / "broken.safetensors"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="holds no plain state dict"):
        small().load(str(tmp_path / "list.pth"))


class Malicious:
    """Unpickling this object would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path: Path, how: str) -> None:
    path, trap = tmp_path / "weights.pth", tmp_path / "trap"
    if how == "torch":
        torch.save({"state_dict": Malicious(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(DataError, match="cannot be read as weights"):
        read_weights(path)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Malicious(trap)))  # without the check the file is created
    assert trap.exists()


def test_pretrained_offline_is_a_machine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = small()

    def offline(*args: Any, **kwargs: Any) -> None:
        assert kwargs["pretrained"] is True
        raise OSError("no route to the hub\nat all")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(MachineError) as caught:
        backbone.load("pretrained")
    assert caught.value.problem == (
        "the pretrained weights of vit_tiny_patch16_224 could not be downloaded (no route to the hub)"
    )
    assert "--weights" in caught.value.fix


def test_pretrained_takes_what_timm_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, given = small(seed=0), small(seed=1).vit
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: given)
    backbone.load("pretrained")
    assert torch.equal(backbone.vit.cls_token, given.cls_token)


def test_an_unknown_name_brings_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        Backbone("deit_tinny_patch16_224")
    assert "--backbone deit_tinny_patch16_224: timm has no such model" in caught.value.problem
    assert "deit_tiny_patch16_224" in caught.value.problem
    assert caught.value.fix == "wsss backbones"


@pytest.mark.parametrize("name", ["resnet18", "vit_relpos_small_patch16_224", "swin_tiny_patch4_window7_224"])
def test_other_architectures_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a plain vision transformer"):
        Backbone(name)


@pytest.mark.parametrize("vit", [{"num_heads": 5, "embed_dim": 24}, {"dephts": 3}, {"patch_size": 0}])
def test_arguments_that_timm_refuses(vit: dict[str, int]) -> None:
    with pytest.raises(UsageError) as caught:
        Backbone("vit_tiny_patch16_224", overrides=vit)
    assert f"model.vit {vit}" in caught.value.problem


def test_what_is_listed_can_be_built() -> None:
    names = plain_transformers("*tiny*patch16_224")
    assert {"deit_tiny_patch16_224", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"} <= set(names)
    assert not any("relpos" in name for name in plain_transformers())
    assert plain_transformers("resnet*") == []
    for name in names:
        assert Backbone(name, overrides=VIT).depth == 2


@pytest.mark.parametrize("name", PREFIX)
def test_tokens_of_a_wide_image(name: str) -> None:
    prefix, has_class_token = PREFIX[name]
    backbone = small(name).eval()
    assert backbone.stride == (8, 8)
    assert (backbone.embed_dim, backbone.depth, backbone.num_prefix_tokens) == (24, 2, prefix)
    assert backbone.has_class_token is has_class_token
    images_B3HW = torch.rand(2, 3, 16, 40)
    with torch.no_grad():
        features = backbone(images_B3HW, taps=(1, 0, 0))
        tokens_BNC = backbone.vit.forward_features(images_B3HW)
    assert features.grid == (2, 5)
    assert features.patches_BNC.shape == (2, 10, 24)
    if name == "vit_medium_patch16_reg4_gap_256":
        tokens_BNC = backbone.vit.fc_norm(tokens_BNC)
    torch.testing.assert_close(features.patches_BNC, tokens_BNC[:, prefix:])
    if has_class_token:
        assert features.class_BC is not None
        torch.testing.assert_close(features.class_BC, tokens_BNC[:, 0])
    else:
        assert features.class_BC is None
    assert len(features.taps) == 3
    for patches_BChw, class_BC in features.taps:
        assert patches_BChw.shape == (2, 24, 2, 5)
        assert (class_BC is not None) == has_class_token
    assert torch.equal(features.taps[1][0], features.taps[2][0])  # the same block twice
    assert not torch.equal(features.taps[0][0], features.taps[1][0])


def test_taps_hold_the_tokens_of_their_block() -> None:
    backbone = small("deit_tiny_distilled_patch16_224").eval()
    outputs: list[Tensor] = []
    for block in backbone.vit.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 24, 16), taps=(0, 1))
    for (patches_BChw, class_BC), tokens_BNC in zip(features.taps, outputs, strict=True):
        torch.testing.assert_close(patches_BChw, tokens_BNC[:, 2:].transpose(1, 2).reshape(1, 24, 3, 2))
        torch.testing.assert_close(class_BC, tokens_BNC[:, 0])


GRIDS = [(4, 4), (2, 2), (7, 7), (3, 9), (4, 5), (1, 4)]
"""Grids: same, smaller, larger, both, larger on one axis, one row; the embeddings are made for 4 x 4."""

LEARNT = {
    **PREFIX,
    "deit3_small_patch16_224": (1, True),  # without an embedding of the class token
    "eva02_tiny_patch14_224": (1, True),  # rotary beside learnt
    "vit_base_patch16_clip_224": (1, True),
}


@contextmanager
def as_timm_does(backbone: Backbone) -> Iterator[None]:
    """Position embeddings are interpolated by timm inside the context."""
    ours = type(backbone.vit)
    backbone.vit.__class__ = ours.__mro__[2]
    try:
        yield
    finally:
        backbone.vit.__class__ = ours


def with_positions(name: str) -> Backbone:
    backbone = small(name).eval()
    torch.nn.init.normal_(backbone.vit.pos_embed)
    return backbone


def positions_of(backbone: Backbone, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Position embeddings for a grid, and the gradient of the learnt ones from a random weighting of them."""
    zeros_BhwC = torch.zeros(1, *grid, 24)
    embedded = backbone.vit._pos_embed(zeros_BhwC)
    positions_BNC = embedded[0] if isinstance(embedded, tuple) else embedded
    weights_BNC = torch.randn(positions_BNC.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((positions_BNC * weights_BNC).sum(), backbone.vit.pos_embed)
    return positions_BNC, gradient


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", LEARNT)
def test_positions_and_their_gradients_are_those_of_timm(name: str, grid: tuple[int, int]) -> None:
    backbone = with_positions(name)
    ours_BNC, ours = positions_of(backbone, grid)
    with as_timm_does(backbone):
        theirs_BNC, theirs = positions_of(backbone, grid)
    if grid == (4, 4):
        assert torch.equal(ours_BNC, theirs_BNC)
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(ours_BNC, theirs_BNC, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [((14, 14), (20, 20)), ((14, 14), (16, 16)), ((37, 37), (9, 52))])
def test_positions_of_real_sizes(old: tuple[int, int], new: tuple[int, int]) -> None:
    torch.manual_seed(0)
    maps_BChw = torch.randn(1, 64, *old)
    expected = F.interpolate(maps_BChw, size=new, mode="bicubic", antialias=True)
    torch.testing.assert_close(resample_bicubic(maps_BChw, new), expected, rtol=0, atol=1e-5)


def test_positions_by_hand() -> None:
    """From one row to two: the row twice; from two columns to one: their mean."""
    maps_BChw = torch.tensor([[[[1.0, 3.0]]]])
    torch.testing.assert_close(resample_bicubic(maps_BChw, (2, 1)), torch.full((1, 1, 2, 1), 2.0))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_positions_stay_float32_under_autocast(kind: torch.dtype) -> None:
    backbone = with_positions("deit_tiny_patch16_224")
    expected, _ = positions_of(backbone, (3, 9))
    with torch.autocast("cpu", dtype=kind):
        positions, gradient = positions_of(backbone, (3, 9))
    assert positions.dtype == gradient.dtype == torch.float32
    assert torch.equal(positions, expected)


def test_positions_of_a_network_in_half_precision_keep_its_type() -> None:
    backbone = with_positions("deit_tiny_patch16_224").to(torch.bfloat16)
    positions = backbone.vit._pos_embed(torch.zeros(1, 3, 9, 24, dtype=torch.bfloat16))
    with as_timm_does(backbone):
        expected = backbone.vit._pos_embed(torch.zeros(1, 3, 9, 24, dtype=torch.bfloat16))
    assert positions.dtype == torch.bfloat16
    torch.testing.assert_close(positions, expected)


class Operators(TorchDispatchMode):
    """Records the names of operators called inside, those of the backward included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def upsamplings(backbone: Backbone) -> list[str]:
    """Interpolation operators of a training step on images of another size than that of the embeddings."""
    with Operators() as operators:
        backbone(torch.rand(1, 3, 40, 24)).patches_BNC.square().sum().backward()
    assert any("bmm" in name or "mm" in name for name in operators.names)
    return [name for name in operators.names if "upsample" in name]


@pytest.mark.parametrize("name", LEARNT)
def test_a_step_interpolates_nothing(name: str) -> None:
    """On CUDA the gradient of an interpolation is not deterministic."""
    backbone = with_positions(name).train()
    upsamplings(backbone)  # the first step computes the interpolation matrices
    assert upsamplings(backbone) == []
    assert backbone.vit.pos_embed.grad.abs().max() > 0
    with as_timm_does(backbone):
        assert len(upsamplings(backbone)) == 2  # forward and backward


def test_positions_first_seen_in_inference_mode_can_be_learnt_after() -> None:
    backbone, images = with_positions("deit_tiny_patch16_224"), torch.rand(1, 3, 8 * 11, 8 * 13)
    with torch.inference_mode():
        backbone(images)
    backbone(images).patches_BNC.sum().backward()
    assert backbone.vit.pos_embed.grad.abs().max() > 0


def test_a_copy_has_positions_of_its_own() -> None:
    backbone = with_positions("deit_tiny_patch16_224")
    copied = deepcopy(backbone)
    torch.nn.init.zeros_(copied.vit.pos_embed)
    assert positions_of(copied, (3, 9))[0][0, 1:].abs().max() == 0
    assert positions_of(backbone, (3, 9))[0][0, 1:].abs().max() > 1


def test_a_backbone_is_freed_at_once() -> None:
    backbone = with_positions("deit_tiny_patch16_224")
    backbone(torch.rand(1, 3, 40, 24))
    kept = weakref.ref(backbone.vit)
    gc.disable()
    try:
        del backbone
        assert kept() is None
    finally:
        gc.enable()


def test_exported_it_interpolates_as_timm_wrote_it() -> None:
    """While tracing, a matrix would be a constant for one size, and a cached one a tracer's tensor without values."""
    backbone, images_B3HW = with_positions("deit_tiny_patch16_224"), torch.rand(1, 3, 8 * 6, 8 * 17)
    exported = torch.export.export(backbone.vit, (images_B3HW,))
    assert any("upsample_bicubic2d_aa" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(backbone.vit(images_B3HW), exported.module()(images_B3HW))
