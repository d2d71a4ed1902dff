"""Memory does not follow the size of a photo times the number of classes; benchmarks/memory.py --photos measures it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEIGHT, WIDTH, CLASSES = 3000, 4000, 60
MOST = 600
"""MiB that a photo may add; probabilities of all classes at its size would be 2,800."""

PROGRAM = f"""
import gc, sys
from pathlib import Path
import cv2, numpy as np, torch
from wsss.config import resolve
from wsss.data.dataset import open_data
from wsss.data.masks import write_mask
from wsss.data.index import keep_readable
from wsss.inference.evaluate import evaluate_labels
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.predicting import predict_masks
from wsss.inference.score import score_split
from wsss.models.network import build_network
from wsss.reporting import Silent

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(field))

def data(root, height, width):
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    photo = cv2.resize(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8), (width, height))
    cv2.imwrite(str(root / "images" / "a.jpg"), photo)
    write_mask(root / "masks" / "a.png", np.zeros((height, width), dtype=np.uint8))
    (root / "classes.txt").write_text("".join(f"class{{k}}\\n" for k in range({CLASSES})))
    (root / "tags.csv").write_text("image,labels\\na,class3\\n")
    return keep_readable(open_data(root))[0]

vit = {{"patch_size": 8, "img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}}
classes = [f"class{{k}}" for k in range({CLASSES})]
network = build_network("deit_tiny_patch16_224", classes, decoder_channels=16, vit=vit)
torch.nn.init.normal_(network.decoder.classify.weight, std=3.0)
flags = {{"run.device": "cpu", "run.workers": 0, "maps.scales": [96], "predict.scales": [96], "augment.size": 96}}
config, cpu = resolve(None, (), flags), torch.device("cpu")

def work(name, height, width):
    tagged, common = data(Path(name), height, width), dict(device=cpu, checkpoint_sha256="f00d")
    predict_masks(network, tagged.records, Path(name, "masks-made"), config, Silent(), **common)
    make_pseudo_labels(network, tagged, Path(name, "labels-made"), config, Silent(), **common)
    score_split(network, tagged, config, cpu)
    evaluate_labels(Path(name, "labels-made"), tagged, errors=True)

work("small", 96, 128)
gc.collect()
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
work("large", {HEIGHT}, {WIDTH})
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak of memory")
def test_a_photo_of_many_classes_stays_small(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MOST
