"""Make the runs of this folder with an earlier version of the program.

    git worktree add /tmp/wsss-0.1.0 7f1cf57      # the last commit before CHANGELOG.md has a section "Unreleased"
    mkdir /tmp/old && cp tests/training/old/make.py /tmp/old && cd /tmp/old
    PYTHONPATH=/tmp/wsss-0.1.0 python make.py $OLDPWD/tests/training/old

In ``cls`` (train-cls) and ``seg`` (train-seg, end to end) it writes the files of a run that was stopped after 4 of 8
steps, its data in "data" of the working folder, and ``end.pt``: what that version made of the network when it
continued, with the versions and the processor that computed it. `write_data` makes the data of both.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

STEPS, EPOCHS, STOP = 4, 2, 4
"""Steps of an epoch, epochs, and the step after which a run is stopped."""


def write_data(root: Path) -> None:
    """16 images of two classes with tags, a training split alone."""
    generator = np.random.default_rng(0)
    lines = ["image,labels"]
    for number in range(16):
        height, width = (40, 48) if number % 2 else (48, 40)
        image_HW3 = generator.integers(0, 256, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        tags = [[0], [1], [0, 1], []][number % 4]
        for tag in tags:
            top = 4 + 20 * tag
            image_HW3[top : top + 14, 6:26] = (250, 40, 40) if tag == 0 else (40, 60, 250)
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_HW3).save(root / "images" / f"{number:02}.png")
        lines.append(f"{number:02}.png,{';'.join(('bee', 'fly')[tag] for tag in tags)}")
    (root / "classes.txt").write_text("bee\nfly\n")
    (root / "tags.csv").write_text("\n".join(lines) + "\n")


def processor() -> str:
    """The name of the processor; results are compared bit for bit where it is the same."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.processor())


class Stopper:
    """A reporter that sends the signal to stop after a step; after none of them without one."""

    def __init__(self, stop: int = -1) -> None:
        self.steps = 0
        self.stop = stop

    def begin(self, what: str, total: int | None = None, done: int = 0) -> None:
        """Nothing is shown."""
        self.steps = 0 if what == "training" else -1000

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Counts the steps."""
        self.steps += 1
        if self.steps == self.stop:
            os.kill(os.getpid(), signal.SIGTERM)

    def say(self, text: str) -> None:
        """Nothing is said."""


SETTINGS: dict[str, Any] = {
    "data.root": Path("data"),
    "model.backbone": "deit_tiny_distilled_patch16_224",
    "model.weights": "none",
    "model.vit": {"patch_size": 8, "img_size": 32, "embed_dim": 8, "depth": 2, "num_heads": 2},
    "model.decoder_channels": 4,
    "run.device": "cpu",
    "run.workers": 0,
    "augment.size": 32,
    "classify.epochs": EPOCHS,
    "classify.batch_size": 4,
    "classify.lr": 1e-3,
    "classify.ema": 0.5,
    "segment.rounds": 1,
    "segment.epochs": EPOCHS,
    "segment.batch_size": 4,
    "segment.lr": 1e-3,
    "labels.pamr_iterations": 2,
    "labels.opening": 3,
}


def main(out: Path) -> None:
    """Train, stop, keep the run, continue it and keep its end."""
    from wsss.config import resolve
    from wsss.errors import Interrupted
    from wsss.training import start

    torch.set_num_threads(1)
    write_data(Path("data"))
    config = resolve(None, (), SETTINGS)
    for name, train, resume in (
        ("cls", start.train_classifier, start.resume_classifier),
        ("seg", start.train_segmenter, start.resume_segmenter),
    ):
        run = Path(name)
        try:
            train(config, run, Stopper(STOP))
        except Interrupted as stopped:
            print(stopped)
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
        shutil.copy(run / "run.json", out / name)
        content = torch.load(run / "last.pt", weights_only=True)
        content["config"]["data"]["root"] = "data"  # it was absolute
        torch.save(content, out / name / "last.pt")
        network = resume(run, Stopper())
        facts = {"torch": str(torch.__version__), "timm": timm.__version__, "processor": processor()}
        torch.save({"network": network.state_dict(), **facts}, out / name / "end.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
