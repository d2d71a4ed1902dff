"""Runs that version 0.1.0 began (``old/make.py``) end as that version would have ended them, or are refused by name."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from wsss.errors import DataError
from wsss.models.checkpoint import read_checkpoint
from wsss.reporting import Silent
from wsss.training.start import Moved, resume_classifier, resume_segmenter

OLD = Path(__file__).parent / "old"
sys.path.insert(0, str(OLD))
from make import processor, write_data  # noqa: E402

RESUME: dict[str, Any] = {"cls": resume_classifier, "seg": resume_segmenter}
ROUNDING = 1e-4
"""Of weights after 4 steps at a rate of 1e-3 on another processor, or with other versions of the libraries."""


@pytest.fixture
def began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the runs and with their data."""
    write_data(tmp_path / "data")
    for name in RESUME:
        shutil.copytree(OLD / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", RESUME)
def test_a_run_of_0_1_0_ends_as_that_version_ended_it(began: Path, name: str) -> None:
    assert read_checkpoint(began / name / "last.pt")["training"]["step"] == 4
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        RESUME[name](Path(name), Silent())
    finally:
        torch.set_num_threads(threads)
    end = torch.load(began / name / "end.pt", weights_only=True)
    content = read_checkpoint(began / name / "last.pt")
    assert content["training"]["step"] == 8
    assert content["network"].keys() == end["network"].keys()
    here = (torch.__version__, timm.__version__, processor())
    exact = here == (end["torch"], end["timm"], end["processor"])
    for key, value in end["network"].items():
        torch.testing.assert_close(content["network"][key], value, rtol=0, atol=0 if exact else ROUNDING, msg=key)


def test_a_decoder_of_another_make_is_refused_by_name(began: Path) -> None:
    content = torch.load(began / "seg" / "last.pt", weights_only=True)
    for key in [key for key in content["network"] if key.startswith("decoder.coarse.")]:
        del content["network"][key]  # the decoder of the first days of 0.1.0
    torch.save(content, began / "seg" / "last.pt")
    with pytest.raises(DataError, match=r"last\.pt: the tensors do not fit .*missing decoder\.coarse") as refused:
        resume_segmenter(Path("seg"), Silent())
    assert refused.value.fix == "train it again"


def test_data_elsewhere_cannot_be_compared_and_the_remedy_is_named(began: Path) -> None:
    shutil.copytree("data", "moved")
    with pytest.raises(DataError, match="has no content_sha256, so the files cannot be compared") as refused:
        resume_classifier(Path("cls"), Silent(), Moved(root=began / "moved"))
    assert "with the data where they were" in refused.value.fix
