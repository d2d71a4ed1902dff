"""Write golden.json: the figures of every stage for one generated scene and one seeded network.

    python tests/golden/make.py

Run it only if the numbers are meant to change, and give the reason in the commit message.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from wsss.config import LabelsSection
from wsss.data.scenes import SceneSettings, make_scene
from wsss.labels.recipe import label_images
from wsss.maps.generate import class_maps
from wsss.maps.present import PresentMaps
from wsss.maps.scores import normalise_scores
from wsss.models.network import build_network
from wsss.training.dense_energy import dense_energy

FILE = Path(__file__).with_name("golden.json")
METHODS = ("getam", "attention-gradient", "gradcam", "rollout", "chefer", "attention", "cam")


def figures() -> dict[str, Any]:
    """All golden figures, plain values."""
    settings = SceneSettings(sizes=((48, 64),))
    scene = make_scene(3, 7, settings)
    image = torch.from_numpy(scene.image_HW3).permute(2, 0, 1).float() / 255
    network = seeded_network(settings.classes)
    present = torch.zeros(1, len(settings.classes), dtype=torch.bool)
    present[0, list(scene.tags)] = True
    logits, maps = class_maps(network, image[None], present)
    found: dict[str, Any] = {
        "tags": list(scene.tags),
        "image_mean": float(image.mean()),
        "logits": logits[0].tolist(),
    }
    for method in METHODS:
        _, of_method = class_maps(network, image[None], present, method=method)
        found[f"maps_{method}"] = summary(of_method)
    _, paper = class_maps(network, image[None], present, coupling="paper")
    found["maps_getam_paper"] = summary(paper)
    scores = normalise_scores(PresentMaps.from_dense(maps, present))
    for background in ("power", "band"):
        section = LabelsSection(background=background, opening=3, low=0.6, high=0.72)
        label = label_images(image[None], scores, (image.shape[1], image.shape[2]), section)
        found[f"label_{background}"] = torch.bincount(label.flatten().long(), minlength=256).nonzero().tolist()
        found[f"pixels_{background}"] = torch.bincount(label.flatten().long()).tolist()[:6]
    with torch.no_grad():
        _, decoded = network(image[None])
    found["decoded"] = summary(decoded.abs())
    found["energy"] = float(dense_energy(image[None], decoded.softmax(1)))
    return found


def seeded_network(classes: tuple[str, ...]) -> Any:
    """A small transformer whose weights are a fixed function of their index, independent of torch's generator."""
    vit = {"patch_size": 8, "img_size": 48, "embed_dim": 24, "depth": 4, "num_heads": 3}
    network = build_network("vit_tiny_patch16_224", classes, decoder_channels=16, vit=vit).eval()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(network.named_parameters()):
            place = torch.arange(parameter.numel(), dtype=torch.float64).reshape(parameter.shape)
            noise = torch.sin(place * 12.9898 + number * 78.233) * 43758.5453
            if parameter.ndim > 1:
                parameter.copy_((noise - noise.floor() - 0.5) * 0.6)
            elif name.endswith("bias"):
                parameter.zero_()
    return network


def summary(values: torch.Tensor) -> list[float]:
    """Mean, root mean square and largest value."""
    values = values.double()
    return [float(values.mean()), float(values.square().mean().sqrt()), float(values.max())]


if __name__ == "__main__":
    FILE.write_text(json.dumps(figures(), indent=1) + "\n")
