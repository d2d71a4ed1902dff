"""``wsss verify``: each file that is missing, changed, cut short or unknown is named; the rest is counted."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsss.config import Config
from wsss.data.dataset import open_data
from wsss.data.masks import read_mask, write_mask
from wsss.inference.labelling import Wanted, make_pseudo_labels
from wsss.outputs.verify import Finding, verify_labels
from wsss.reporting import Silent
from wsss.shard import Shard
from wsss.training.start import train_classifier
from wsss.training.verify import verify

Program = Callable[..., Any]
QUIET = Silent()


def named(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(one.fault, one.path) for one in findings]


def make_labels(out: Path, config: Config, network: Any, shard: Shard | None = None) -> None:
    tagged = open_data(config.data.root or out, split="val")
    make_pseudo_labels(
        network,
        tagged,
        out,
        config,
        QUIET,
        device=torch.device("cpu"),
        checkpoint_sha256="none",
        wanted=Wanted(scores=True),
        shard=shard,
    )


@pytest.fixture
def labels(tmp_path: Path, tiny_config: Callable[..., Config], small_network: Any) -> Path:
    make_labels(tmp_path / "labels", tiny_config(), small_network(decoder=False))
    return tmp_path / "labels"


def test_label_maps(wsss: Program, labels: Path) -> None:
    found = wsss("verify", labels)
    assert (found.status, found.out) == (0, "right 25, missing 0, changed 0, cut short 0, unknown 0\n")
    maps = sorted((labels / "labels").glob("*.png"))
    maps[0].unlink()
    label_HW = read_mask(maps[1])
    label_HW[:4] = 1
    write_mask(maps[1], label_HW)
    maps[2].write_bytes(maps[2].read_bytes()[:-20])
    write_mask(labels / "labels" / "more.png", np.zeros((4, 4), np.uint8))
    scores = sorted((labels / "scores").glob("*.npz"))
    scores[3].write_bytes(scores[3].read_bytes()[:-30])
    scores[4].write_bytes(b"x" + scores[4].read_bytes()[1:])
    (labels / "notes.txt").write_text("not of the folder")
    found = wsss("verify", labels, "--json")
    assert found.status == 3
    plain = json.loads(found.out)
    assert {key: [Path(one["path"]).name for one in plain[key]] for key in list(plain)[3:]} == {
        "missing": [maps[0].name],
        "changed": [maps[1].name, scores[4].name],
        "cut short": [maps[2].name, scores[3].name],
        "unknown": ["more.png"],
    }
    assert (plain["ok"], plain["right"]) == (False, 20)
    assert "wanted if somebody corrected it" in plain["changed"][0]["why"]
    found = wsss("verify", labels)
    assert "error: " in found.err
    assert "missing 1, changed 2, cut short 2, unknown 1" in found.err
    assert "wsss explain verify" in found.err


def test_images_and_the_manifest_of_label_maps(
    tmp_path: Path, labels: Path, tiny_config: Callable[..., Config]
) -> None:
    manifest = json.loads((labels / "manifest.json").read_text())
    (labels / "manifest.json").write_text(json.dumps(manifest | {"method": "cam"}))
    journal = (labels / "journal.jsonl").read_text().splitlines()
    entry = json.loads(journal[0])
    lines = [json.dumps(entry | {"origin": str(tmp_path / "gone.jpg")}), *journal[1:-1], journal[-1][:40]]
    (labels / "journal.jsonl").write_text("\n".join(lines))
    found = verify_labels(labels, QUIET)
    assert named(found.findings) == [
        ("cut short", "journal.jsonl"),
        ("changed", "manifest.json"),
        ("missing", "journal.jsonl"),
        ("missing", str(tmp_path / "gone.jpg")),
        ("unknown", f"labels/{json.loads(journal[-1])['name']}.png"),
        ("unknown", f"scores/{json.loads(journal[-1])['name']}.npz"),
    ]
    assert not any("gone" in one.path for one in verify_labels(labels, QUIET, sources=False).findings)


def test_shards_that_are_not_merged(tmp_path: Path, tiny_config: Callable[..., Config], small_network: Any) -> None:
    out = tmp_path / "out"
    for index in range(2):
        make_labels(out, tiny_config(), small_network(decoder=False), Shard(index, 2))
    assert named(verify_labels(out, QUIET).findings) == []
    journal = out / "journal.1-of-2.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[1:]))
    assert ("changed", "journal.1-of-2.jsonl") in named(verify_labels(out, QUIET).findings)


def test_a_run(wsss: Program, tmp_path: Path, tiny_config: Callable[..., Config]) -> None:
    run = tmp_path / "whole" / "run"
    train_classifier(tiny_config(classify__epochs=1), run, QUIET)
    found = wsss("verify", run)
    assert (found.status, found.out.split(",")[0]) == (0, "right 6")
    content = bytearray((run / "last.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "last.pt").write_bytes(content)
    (run / "best.pt").write_bytes((run / "best.pt").read_bytes()[:-100])
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": ')
    assert named(verify(run.parent, QUIET).findings) == [
        ("changed", "run/last.pt"),
        ("cut short", "run/best.pt"),
        ("cut short", "run/metrics.jsonl"),
    ]
    (run / "last.pt").unlink()
    assert ("missing", "last.pt") in named(verify(run, QUIET).findings)


def test_the_data_of_a_run(tmp_path: Path, tiny_config: Callable[..., Config], scenes: Path) -> None:
    shutil.copytree(scenes, tmp_path / "data")
    train_classifier(tiny_config(classify__epochs=1, data__root=tmp_path / "data"), tmp_path / "run", QUIET)
    assert not verify(tmp_path / "run", QUIET).findings
    first, second, *_ = sorted((tmp_path / "data").rglob("*.jpg"))
    shutil.copy(second, first)
    (finding,) = verify(tmp_path / "run", QUIET).findings
    assert (finding.fault, finding.path) == ("changed", str(tmp_path / "data"))
    shutil.rmtree(tmp_path / "data")
    (finding,) = verify(tmp_path / "run", QUIET).findings
    assert (finding.fault, finding.path) == ("missing", str(tmp_path / "data"))
    assert not verify(tmp_path / "run", QUIET, data=False).findings


def test_packed_data(wsss: Program, tmp_path: Path, scenes: Path) -> None:
    out = tmp_path / "packed"
    assert wsss("data", "pack", scenes, "-o", out).status == 0
    assert wsss("verify", out).out.startswith("right 3, ")
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=out, check=True)
    shard = out / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-600])
    (out / "more-000000.tar").write_bytes(b"")
    (out / "classes.txt").write_text("cat\n")
    assert named(verify(out, QUIET).findings) == [
        ("changed", "classes.txt"),
        ("cut short", "train-000000.tar"),
        ("unknown", "more-000000.tar"),
    ]


def test_a_folder_without_hashes(wsss: Program, tmp_path: Path) -> None:
    assert "with hashes to compare" in wsss("verify", tmp_path).error()[0]
    assert wsss("verify", tmp_path / "no").status == 3
