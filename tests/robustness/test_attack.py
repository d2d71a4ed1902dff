"""Attacks: bounds, pixels outside, noise at 0 steps, weights by hand, two threat models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from wsss.attention.temperature import Temperature
from wsss.models.network import Network
from wsss.robustness.attack import bounded_attack, mask_loss, noise_like, patch_attack, tag_loss
from wsss.robustness.suites import ATTACKS, PLACES, Clean, conditions_of

NAMES = ("a", "b")
PRESENT = torch.tensor([[True, False], [True, True]])
KNOWN = torch.tensor([[True, True], [True, False]])
RADIUS = 4 / 255


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network(small_network: Callable[..., Network]) -> Network:
    return small_network()


def inside(images: Tensor) -> Tensor:
    part = torch.zeros(2, 1, 24, 40, dtype=torch.bool)
    part[0, :, :16, 8:24] = part[1, :, 8:, 24:] = True
    return part


def test_a_patch_stays_inside_and_raises_the_loss(network: Network, images: Tensor) -> None:
    loss, part = tag_loss(network, PRESENT, KNOWN), inside(images)
    noise, attacked = (patch_attack(network, images, part, loss, NAMES, steps) for steps in (0, 5))
    outside = ~part.expand_as(images)
    assert torch.equal(noise[outside], images[outside])
    assert torch.equal(attacked[outside], images[outside])
    assert torch.equal(noise[~outside], noise_like(images, NAMES)[~outside])
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (attacked - noise).abs().max() <= 5 * 8 / 255 + 1e-6
    with torch.no_grad():
        assert loss(attacked, 0) > loss(noise, 0)
    assert not any(parameter.grad is not None for parameter in network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_bounded_attack_stays_within_its_radius(network: Network, images: Tensor) -> None:
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0, 1
    loss = tag_loss(network, PRESENT, KNOWN)
    noise, attacked = (bounded_attack(network, images, RADIUS, loss, NAMES, steps) for steps in (0, 4))
    for one in (noise, attacked):
        assert (one - images).abs().max() <= RADIUS + 1e-6
        assert one.min() >= 0
        assert one.max() <= 1
        assert not torch.equal(one, images)
    with torch.no_grad():
        assert loss(attacked, 0) > loss(noise, 0)
    assert torch.equal(bounded_attack(network, images, 0, loss, NAMES, 2), images)


def test_images_are_attacked_each_for_itself(network: Network, images: Tensor) -> None:
    both = bounded_attack(network, images, RADIUS, tag_loss(network, PRESENT, KNOWN), NAMES, 2)
    alone = bounded_attack(network, images[1:], RADIUS, tag_loss(network, PRESENT[1:], KNOWN[1:]), NAMES[1:], 2)
    assert (both[1:] != alone).float().mean() < 0.01  # the sign of a gradient near 0 may differ in its last bit


def test_unknown_tags_take_no_part(network: Network, images: Tensor) -> None:
    unknown = torch.zeros_like(KNOWN)
    assert tag_loss(network, PRESENT, unknown)(images, 0) == 0


def test_weights_of_mask_attacks_by_hand(network: Network, images: Tensor) -> None:
    """At the start pixels that are still right count alone; after the last step both kinds count a half."""
    with torch.no_grad():
        scores = network.scores_on_grid(images)
        labels = scores.argmax(dim=1)
        wrong = labels.clone()
        wrong[0] = (labels[0] + 1) % 3
        each = F.cross_entropy(scores, wrong, reduction="none")
        loss = mask_loss(network, wrong, 4)
        torch.testing.assert_close(loss(images, 0), each[1].sum())
        torch.testing.assert_close(loss(images, 2), 0.25 * each[0].sum() + 0.75 * each[1].sum())


def test_an_adaptive_attack_differs_from_a_transferred_one(network: Network, images: Tensor) -> None:
    loss = tag_loss(network, PRESENT, KNOWN)
    plain = bounded_attack(network, images, RADIUS, loss, NAMES, 2)
    with network.edited(Temperature(3.0)):
        adaptive = bounded_attack(network, images, RADIUS, loss, NAMES, 2)
        assert loss(adaptive, 0) >= loss(bounded_attack(network, images, RADIUS, loss, NAMES, 0), 0)
    assert not torch.equal(plain, adaptive)


def clean(images: Tensor, grid: tuple[int, int] = (3, 5)) -> Clean:
    saliency = torch.zeros(2, *grid)
    return Clean(images_B3HW=images, names=NAMES, present_BK=PRESENT, known_BK=KNOWN, saliency_Bhw=saliency)


def test_cells_are_the_same_for_all_ways(network: Network, images: Tensor) -> None:
    """Each of the five places holds 2 x 2 patches; nothing outside of them changes, whatever is put there."""
    conditions = conditions_of("patch", steps=1)[1:]
    assert [(one.level, one.is_attack) for one in conditions[::PLACES]] == [
        ("corrupted", False),
        ("noise", False),
        ("adversarial", True),
    ]
    parts = []
    for condition in conditions:
        changed = condition.change(network, clean(images))
        assert changed.part_Bhw is not None
        parts.append(changed.part_Bhw)
        assert changed.part_Bhw.flatten(1).sum(dim=1).tolist() == [4, 4]
        outside = ~changed.part_Bhw.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand_as(images)
        assert torch.equal(changed.images_B3HW[outside], images[outside])
        assert not torch.equal(changed.images_B3HW, images)
    assert all(torch.equal(parts[i], parts[i % PLACES]) for i in range(len(parts)))
    assert not torch.equal(parts[0], parts[1])


def test_masks_are_attacked_where_there_are_any(network: Network, images: Tensor) -> None:
    kinds = [condition.kind for condition in conditions_of("adversarial", masks=True)]
    assert kinds == ["clean", *["noise"] * 2, *["attack on tags"] * 2, *["attack on masks"] * 2]
    assert "attack on masks" not in [condition.kind for condition in conditions_of("adversarial")]
    last = conditions_of("adversarial", steps=2, masks=True)[-1]
    changed = last.change(network, clean(images))
    assert (changed.images_B3HW - images).abs().max() <= RADIUS + 1e-6
    assert changed.part_Bhw is None


def test_steps_by_default() -> None:
    assert ATTACKS == {"patch": 20, "adversarial": 10}
