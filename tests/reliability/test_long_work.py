"""Memory, open files, threads and processes do not grow over many images; see also benchmarks/long_work.py."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wsss.data.dataset import open_data
from wsss.data.records import TaggedSet
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.predicting import predict_masks

IMAGES, SIDE = 300, 16
GROWTH = 24 * 2**20
"""Limit in bytes of the growth of resident memory after a third of the images; a leak of 1 MB an image exceeds it."""


class Watch:
    """A reporter that notes the resident memory after each image."""

    def __init__(self) -> None:
        self.resident: list[int] = []

    def begin(self, what: str, total: int, done: int = 0) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def advance(self, count: int = 1, note: str = "") -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.resident.append(4096 * pages)

    def growth(self) -> int:
        assert len(self.resident) == IMAGES
        return max(self.resident[-20:]) - max(self.resident[: IMAGES // 3])


def held() -> dict[str, int]:
    """Numbers of the resources that a process may leak: open files, threads, child processes."""
    gc.collect()
    return {
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "processes": len(multiprocessing.active_children()),
        "shared memory": len(list(Path("/dev/shm").glob("torch_*"))),
    }


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> TaggedSet:
    root = tmp_path_factory.mktemp("many")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for k in range(IMAGES):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(root / "images" / f"{k:04d}.png")
    rows = [f"{k:04d},{'bee' if k % 2 else ''}" for k in range(IMAGES)]
    (root / "classes.txt").write_text("bee\nladybird\n")
    (root / "tags.csv").write_text("\n".join(["image,labels", *rows]) + "\n")
    return open_data(root)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")
@pytest.mark.parametrize("command", ["make-pseudo", "predict"])
def test_many_images_leave_nothing(
    many: TaggedSet, tmp_path: Path, tiny_config: Any, small_network: Callable[..., Any], command: str
) -> None:
    network = small_network(depth=1)
    config = tiny_config(run__workers=2, maps__scales=[SIDE], predict__scales=[SIDE], run__batch_pixels=4 * 48**2)

    def work(records: slice, out: Path, watch: Watch) -> None:
        common: dict[str, Any] = {"device": torch.device("cpu"), "checkpoint_sha256": "0" * 64}
        chosen = many.records[records]
        if command == "predict":
            predict_masks(network, chosen, out, config, watch, **common)
        else:
            tagged = TaggedSet(root=many.root, split="all", classes=many.classes, records=chosen)
            make_pseudo_labels(network, tagged, out, config, watch, **common)

    work(slice(12), tmp_path / "first", Watch())  # allocates what is kept for good: libraries, buffers
    before, watch = held(), Watch()
    work(slice(None), tmp_path / "out", watch)
    assert held() == before
    assert watch.growth() < GROWTH
    assert len(list((tmp_path / "out" / "labels").iterdir())) == IMAGES
