"""Readouts by hand, and their class activation maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.models.backbone import Features
from wsss.models.readout import READOUTS, Readout

FED = {"project": "token", "token": "token", "pool": "pool", "both": "both"}


def made(name: str, classes: int = 3) -> Readout:
    torch.manual_seed(0)
    return READOUTS[name](4, classes)


def features(grid: tuple[int, int] = (2, 3)) -> Features:
    torch.manual_seed(1)
    return Features(torch.randn(2, grid[0] * grid[1], 4), torch.randn(2, 4), grid, [])


def test_project_by_hand() -> None:
    readout, given = made("project"), features()
    assert given.class_BC is not None
    for b in range(2):
        projected = [
            F.gelu(readout.project(torch.cat([patch_C, given.class_BC[b]]))) for patch_C in given.patches_BNC[b]
        ]
        torch.testing.assert_close(readout(given)[b], readout.head(torch.stack(projected).mean(dim=0)))


def test_token_pool_and_both_by_hand() -> None:
    given = features()
    assert given.class_BC is not None
    token, pool, both = made("token"), made("pool"), made("both")
    torch.testing.assert_close(token(given), given.class_BC @ token.head.weight.T + token.head.bias)
    pooled_BC = given.patches_BNC.mean(dim=1)
    torch.testing.assert_close(pool(given), pooled_BC @ pool.head.weight.T + pool.head.bias)
    expected = given.class_BC @ both.token_head.weight.T + both.token_head.bias + pooled_BC @ both.pool_head.weight.T
    torch.testing.assert_close(both(given), expected)


@pytest.mark.parametrize("name", ["project", "pool"])
@pytest.mark.parametrize("classes", [1, 3])
def test_the_mean_of_the_cam_is_the_logit_less_the_bias(name: str, classes: int) -> None:
    readout, given = made(name, classes), features()
    cam_BKhw = readout.cam(given)
    assert cam_BKhw.shape == (2, classes, 2, 3)
    torch.testing.assert_close(cam_BKhw.mean(dim=(2, 3)), readout(given) - readout.head.bias)


def test_the_cam_of_both_is_the_part_of_the_patches() -> None:
    readout, given = made("both"), features()
    assert given.class_BC is not None
    torch.testing.assert_close(readout.cam(given).mean(dim=(2, 3)), readout(given) - readout.token_head(given.class_BC))


@pytest.mark.parametrize("name", READOUTS)
def test_the_cam_keeps_rows_and_columns_apart(name: str) -> None:
    readout, given = made(name), features((2, 3))
    cam_BKhw = readout.cam(given)
    lone = Features(given.patches_BNC[:, 4:5], given.class_BC, (1, 1), [])  # patch 4 is row 1, column 1
    torch.testing.assert_close(cam_BKhw[:, :, 1, 1], readout.cam(lone)[:, :, 0, 0])


def gradients(readout: Readout, given: Features) -> tuple[Tensor, Tensor]:
    assert given.class_BC is not None
    patches_BNC, class_BC = given.patches_BNC.requires_grad_(), given.class_BC.requires_grad_()
    loss = readout(Features(patches_BNC, class_BC, given.grid, [])).sum()
    grads = torch.autograd.grad(loss, (patches_BNC, class_BC), allow_unused=True, materialize_grads=True)
    return grads[0], grads[1]


@pytest.mark.parametrize(("name", "fed"), FED.items())
def test_which_tokens_feed_it(name: str, fed: str) -> None:
    readout = made(name)
    assert readout.fed == fed
    to_patches, to_class = gradients(readout, features())
    assert bool(to_patches.abs().sum() > 0) == (name != "token")
    assert bool(to_class.abs().sum() > 0) == (name != "pool")
