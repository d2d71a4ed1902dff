"""Memory of complete commands on photos of real sizes: `python benchmarks/memory.py --photos 6,12,48`.

Each cell is the largest memory of a command with all of its processes: the sum of their proportional set sizes (PSS,
in which a page that several processes share is counted once), read from /proc every few milliseconds. Photos are JPEGs
of smooth noise, 4:3; the network is DeiT-Tiny with random weights and the default settings of a CPU.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from measuring import MEBIBYTE, table

from wsss.config import Config, resolve
from wsss.data.masks import write_mask
from wsss.models.checkpoint import build_from, save_checkpoint

SECONDS = 0.02
"""Seconds between two readings of the memory."""
COMMANDS = ("predict", "make-pseudo", "evaluate", "validation")
VALIDATE = """
import sys; from pathlib import Path; import torch
from wsss.config import resolve; from wsss.data.dataset import open_data
from wsss.inference.score import score_split; from wsss.models.checkpoint import load_network
network, config, _ = load_network(Path(sys.argv[1]))
score_split(network, open_data(Path(sys.argv[2])), config, torch.device("cpu"))
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of a command: the largest memory of all its processes together in MiB, and seconds."""

    pss: float
    rss: float
    seconds: float


def cost_of(command: Sequence[str]) -> Cost:
    """Run a command and measure its processes.

    Raises:
        RuntimeError: it failed; the message is its standard error.
    """
    began = time.monotonic()
    with TemporaryDirectory() as folder, Path(folder, "err").open("w+b") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        pss = rss = 0
        while process.poll() is None:
            now = [_memory(pid) for pid in _tree(process.pid)]
            pss, rss = max(pss, sum(one[0] for one in now)), max(rss, sum(one[1] for one in now))
            time.sleep(SECONDS)
        if process.returncode:
            raise RuntimeError(Path(folder, "err").read_text())
    return Cost(pss / MEBIBYTE, rss / MEBIBYTE, time.monotonic() - began)


def _tree(pid: int) -> list[int]:
    """Ids of a process and all its descendants."""
    found = [pid]
    for parent in found:
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue  # the process has ended
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Proportional and resident set size of a process in bytes; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines[1:] if line.endswith("kB")}
    return sizes.get("Pss", 0), sizes.get("Rss", 0)


def write_photos(root: Path, megapixels: float, count: int, classes: Sequence[str]) -> None:
    """A data folder of photos, each with one tag, and their masks."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    rng = np.random.default_rng(0)
    rows = ["image,labels"]
    (root / "images").mkdir(parents=True)
    for k in range(count):
        coarse_hw3 = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        photo_HW3 = cv2.resize(coarse_hw3, (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / "images" / f"{k:03d}.jpg"), photo_HW3, [cv2.IMWRITE_JPEG_QUALITY, 90])
        mask_HW = np.zeros((height, width), dtype=np.uint8)
        mask_HW[height // 4 : height // 2, width // 4 : width // 2] = 1
        write_mask(root / "masks" / f"{k:03d}.png", mask_HW)
        rows.append(f"{k:03d},{classes[0]}")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    (root / "tags.csv").write_text("\n".join(rows) + "\n")


def write_run(run: Path, classes: Sequence[str]) -> Config:
    """A run of train-seg with random weights."""
    config = resolve(None, (), {"model.backbone": "deit_tiny_patch16_224", "model.weights": "none"})
    run.mkdir()
    save_checkpoint(run / "last.pt", build_from(config, list(classes), decoder=True), config)
    return config


def costs(folder: Path, commands: Sequence[str]) -> list[Cost]:
    """Cost of each command on the data and with the run in a folder."""
    wsss, data, run = [sys.executable, "-m", "wsss"], str(folder / "data"), str(folder / "run")
    lines = {
        "predict": [*wsss, "predict", run, data, "-o", str(folder / "masks")],
        "make-pseudo": [*wsss, "make-pseudo", run, "--data", data, "-o", str(folder / "labels")],
        "evaluate": [*wsss, "evaluate", str(folder / "labels"), "--data", data],
        "validation": [sys.executable, "-c", VALIDATE, run, data],
    }
    return [cost_of(lines[command]) for command in commands]


def print_photos(megapixels: Sequence[float], num_labels: Sequence[int], counts: Sequence[int]) -> None:
    """Print the table: a row for each size, number of labels (background included) and number of photos."""
    rows = []
    for size in megapixels:
        for labels in num_labels:
            for count in counts:
                classes = [f"class{k}" for k in range(1, labels)]
                with TemporaryDirectory() as folder:
                    write_photos(Path(folder, "data"), size, count, classes)
                    write_run(Path(folder, "run"), classes)
                    found = costs(Path(folder), COMMANDS)
                cells = [f"{cost.pss:.0f} ({cost.seconds:.0f} s)" for cost in found]
                rows.append([f"{size:g}", str(labels), str(count), *cells])
                print(f"# {rows[-1]} RSS {[round(cost.rss) for cost in found]}", file=sys.stderr, flush=True)
    header = ["megapixels", "labels", "photos", *(f"{command}, MiB" for command in COMMANDS)]
    print(f"\n{table(header, rows)}\n\nTarget at 48 megapixels and 21 labels: 1536 MiB, for one photo and for eight.")
