"""class_maps against an explicit computation: one image and class at a time, with N x N attention and gradient."""

import pytest
import torch
from torch import Tensor, nn

from wsss.config import Coupling
from wsss.maps.generate import class_maps
from wsss.models.backbone import Backbone, Features
from wsss.models.network import Network
from wsss.models.readout import READOUTS

CLASSES = ("a", "b", "c", "d", "e")


NAMES = {
    0: "vit_base_patch16_siglip_gap_224",
    1: "deit_tiny_patch16_224",
    2: "deit_tiny_distilled_patch16_224",
    5: "vit_small_patch14_reg4_dinov2",
}


def small_network(prefix: int, readout: str, *, depth: int = 4, patch: int = 8, name: str = "") -> Network:
    """A real timm transformer, small, with 0, 1, 2 or 5 prefix tokens and sharpened attention."""
    name = name or NAMES[prefix]
    torch.manual_seed(prefix)
    overrides = {"depth": depth, "embed_dim": 24, "num_heads": 3, "patch_size": patch, "img_size": 4 * patch}
    backbone = Backbone(name, overrides=overrides)
    for block in backbone.vit.blocks:
        nn.init.normal_(block.attn.qkv.weight, std=0.3)
    network = Network(backbone, READOUTS[readout](24, len(CLASSES)), None, CLASSES)
    return network.eval()


def explicit_maps(network: Network, images: Tensor, present: Tensor, element: str, start: int, fed: str) -> Tensor:
    """One forward and one backward an (image, class), through materialised attention."""
    attentions: list[Tensor] = []
    handles = []
    for block in network.backbone.vit.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda m, i, out: attentions.append(out)))
    prefix = network.backbone.num_prefix_tokens
    rows, columns = (-(-size // step) for size, step in zip(images.shape[2:], network.backbone.stride, strict=True))
    maps = torch.zeros(*present.shape, rows, columns)
    for b, k in present.nonzero().tolist():
        attentions.clear()
        logit = network.classify(images[b : b + 1])[0, k]
        gradients = torch.autograd.grad(logit, attentions)
        row = torch.zeros(attentions[0].shape[-1])
        for A, G in list(zip(attentions, gradients, strict=True))[start:]:
            A, G = A[0].detach(), G[0]
            if element == "released":
                E = (G * A).relu().mean(0) * G.relu().mean(0)
            elif element == "paper":
                E = (A.mean(0) * G.mean(0)).relu() * G.mean(0).relu()
            else:
                E = (G * A).relu().mean(0)
            if fed in ("token", "both"):
                row += E[0]
            if fed in ("pool", "both"):
                row += E[prefix:].mean(0)
        maps[b, k] = row[prefix:].reshape(rows, columns)
    for handle in handles:
        handle.remove()
    for block in network.backbone.vit.blocks:
        block.attn.fused_attn = True
    return maps


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


PRESENT = torch.tensor(
    [[0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1]], dtype=torch.bool
)  # 0, 1, 2 and 4 tags


@pytest.mark.parametrize("coupling", ["released", "paper"])
@pytest.mark.parametrize("start", [0, 2, 3])
@pytest.mark.parametrize(
    ("prefix", "readout", "fed"),
    [
        (0, "pool", "pool"),
        (1, "project", "token"),
        (1, "token", "token"),
        (1, "both", "both"),
        (2, "project", "token"),
        (2, "both", "both"),
        (5, "project", "token"),
        (5, "pool", "pool"),
    ],
)
def test_getam_equals_the_explicit_loop(prefix: int, readout: str, fed: str, start: int, coupling: Coupling) -> None:
    network = small_network(prefix, readout)
    assert network.backbone.num_prefix_tokens == prefix
    images = torch.rand(4, 3, 24, 44)  # 3 x 6 patches, the last column padded
    _, maps = class_maps(network, images, PRESENT, coupling=coupling, start_layer=start)
    expected = explicit_maps(network, images, PRESENT, coupling, start, fed)
    assert expected.abs().sum() > 0
    assert relative_error(maps, expected) < 1e-5


def test_rotary_positions_and_swiglu() -> None:
    network = small_network(1, "project", name="eva02_tiny_patch14_224")
    images = torch.rand(4, 3, 24, 40)
    for start in (0, 2):
        _, maps = class_maps(network, images, PRESENT, start_layer=start)
        assert relative_error(maps, explicit_maps(network, images, PRESENT, "released", start, "token")) < 1e-5


def test_attention_gradient_equals_the_explicit_loop() -> None:
    network = small_network(1, "project")
    images = torch.rand(4, 3, 40, 24)
    _, maps = class_maps(network, images, PRESENT, method="attention-gradient", start_layer=1)
    assert relative_error(maps, explicit_maps(network, images, PRESENT, "attention-gradient", 1, "token")) < 1e-5


@pytest.mark.parametrize(("prefix", "readout"), [(0, "pool"), (1, "project"), (1, "token"), (5, "both")])
@pytest.mark.parametrize("start", [0, 2])
def test_legrad_equals_the_explicit_loop(prefix: int, readout: str, start: int) -> None:
    """The logit of the tokens after each block; its gradient at the attention of that block alone."""
    network = small_network(prefix, readout)
    images = torch.rand(4, 3, 24, 44)
    _, maps = class_maps(network, images, PRESENT, method="legrad", start_layer=start)
    attentions: list[Tensor] = []
    tokens: list[Tensor] = []
    for block in network.backbone.vit.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, i, out: attentions.append(out))
        block.register_forward_hook(lambda m, i, out: tokens.append(out))
    expected = torch.zeros_like(maps)
    for b, k in PRESENT.nonzero().tolist():
        attentions.clear()
        tokens.clear()
        grid = network.features(images[b : b + 1]).grid
        for layer in range(start, 4):
            normed = network.backbone.final_norm(network.backbone.vit.norm(tokens[layer]))
            features = Features(normed[:, prefix:], normed[:, 0] if prefix else None, grid, [])
            logit = network.readout(features)[0, k]
            (gradient,) = torch.autograd.grad(logit, attentions[layer], retain_graph=True)
            expected[b, k] += gradient[0].relu().mean(dim=(0, 1))[prefix:].reshape(grid)
    assert expected.abs().sum() > 0
    assert relative_error(maps, expected) < 1e-5


def test_more_patches_than_a_chunk_of_rows() -> None:
    network = small_network(1, "pool", depth=2)
    images = torch.rand(1, 3, 8 * 18, 8 * 17)  # 306 patches; chunks hold 256 rows
    present = torch.tensor([[False, True, False, False, False]])
    _, maps = class_maps(network, images, present)
    assert relative_error(maps, explicit_maps(network, images, present, "released", 0, "pool")) < 1e-5


def test_last_class_token_row_has_no_gradient_where_the_head_pools() -> None:
    network = small_network(1, "pool")
    _, maps = class_maps(network, torch.rand(1, 3, 24, 24), PRESENT[1:2], start_layer=3, rows="token")
    assert maps.abs().max() == 0


def test_hybrid_backbone() -> None:
    torch.manual_seed(0)
    backbone = Backbone("vit_tiny_r_s16_p8_224", overrides={"depth": 3})
    network = Network(backbone, READOUTS["project"](192, 5), None, CLASSES).eval()
    images = torch.rand(2, 3, 64, 100)
    _, maps = class_maps(network, images, PRESENT[1:3], start_layer=1)
    assert relative_error(maps, explicit_maps(network, images, PRESENT[1:3], "released", 1, "token")) < 1e-5


@pytest.mark.parametrize("coupling", ["released", "paper"])
def test_autocast_stays_within_its_precision(coupling: Coupling) -> None:
    network = small_network(1, "project")
    images = torch.rand(4, 3, 24, 40)
    _, full = class_maps(network, images, PRESENT, coupling=coupling)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, half = class_maps(network, images, PRESENT, coupling=coupling)
    assert half.dtype == torch.float32
    assert relative_error(half, full) < 0.1


def test_batch_size_does_not_change_maps() -> None:
    network = small_network(1, "project")
    images = torch.rand(4, 3, 24, 40)
    _, together = class_maps(network, images, PRESENT)
    alone = torch.cat([class_maps(network, images[i : i + 1], PRESENT[i : i + 1])[1] for i in range(4)])
    assert relative_error(together, alone) < 1e-5


def test_parameters_keep_requires_grad_and_get_no_gradient() -> None:
    network = small_network(1, "project")
    network.backbone.vit.cls_token.requires_grad_(False)
    before = [p.requires_grad for p in network.parameters()]
    class_maps(network, torch.rand(1, 3, 16, 16), PRESENT[1:2])
    assert [p.requires_grad for p in network.parameters()] == before
    assert all(p.grad is None for p in network.parameters())


def test_maps_work_under_no_grad_and_leave_no_hooks() -> None:
    network = small_network(1, "project")
    with torch.no_grad():
        for method in (
            "getam",
            "gradcam",
            "rollout",
            "chefer",
            "legrad",
            "attention",
            "cam",
            "objects",
            "attention-gradient",
        ):
            _, maps = class_maps(network, torch.rand(4, 3, 16, 24), PRESENT, method=method)
            assert maps.shape == (4, 5, 2, 3)
            assert maps[0].abs().sum() == 0
            assert (maps >= 0).all()
            assert maps[3, 3].abs().sum() == 0
    assert not network.backbone.gradcam_layer._forward_hooks
