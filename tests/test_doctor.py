"""What ``wsss doctor`` finds, on machines that are made up."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from wsss import doctor
from wsss.config import Config, resolve


def found(config: Config, folder: Path) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine(config, folder)}


@pytest.fixture
def config(scenes: Path) -> Config:
    flags = {"data.root": scenes, "model.backbone": "deit_tiny_patch16_224", "model.weights": "none", "run.workers": 0}
    return resolve(None, (), flags)


def test_a_machine_that_has_all(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    checks = found(config, tmp_path / "not" / "there")
    assert [name for name, check in checks.items() if check.status == "bad"] == []
    assert "2 classes" in checks["data"].found
    assert "train 24" in checks["data"].found
    assert str(tmp_path) in checks["disk"].found
    assert "weights" not in checks


def test_each_lack_has_its_mend(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(2**30, 2**30, 5))
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "memory_limit", lambda: 2**30)
    broken = config.model_copy(
        update={
            "model": config.model.model_copy(update={"weights": "gone.safetensors"}),
            "data": config.data.model_copy(update={"root": tmp_path / "gone"}),
        }
    )
    checks = found(broken, tmp_path)
    bad = {name: check.mend for name, check in checks.items() if check.status == "bad"}
    assert bad["threads"] == "unset OMP_NUM_THREADS"
    assert bad["disk"] == "free some space there"
    assert bad["cuda"].startswith("nvidia-smi")
    assert bad["weights"].startswith("--weights FILE")
    assert bad["data"]
    assert checks["geo"].mend == "pip install 'wsss[geo]'"
    assert "batch_size" in checks["memory"].mend
    assert all(check.mend for name, check in checks.items() if check.status == "bad")


def test_memory_is_that_of_the_container(tmp_path: Path) -> None:
    assert doctor.memory_limit(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:       1000 kB\nMemFree:        10 kB\n")
    assert doctor.memory_limit(tmp_path) == 1000 * 1024
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    limit = tmp_path / "sys/fs/cgroup/memory.max"
    for text, wanted in (("max\n", 1024000), ("2048\n", 2048), ("", 1024000)):
        limit.write_text(text)
        assert doctor.memory_limit(tmp_path) == wanted


def test_pretrained_weights(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weights(**changes: Any) -> doctor.Check:
        return found(config.model_copy(update={"model": config.model.model_copy(update=changes)}), tmp_path)["weights"]

    monkeypatch.setattr(doctor, "_is_cached", lambda name: True)
    assert weights(weights="pretrained").status == "ok"
    monkeypatch.setattr(doctor, "_is_cached", lambda name: False)
    assert weights(weights="pretrained").status == "note"
    assert weights(weights="pretrained", backbone="resnet_none").status == "bad"
