"""`wsss run`: all stages in one folder, stopped and continued, on generated scenes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from wsss.budget import Choice, planned
from wsss.config import Config
from wsss.errors import DataError, Interrupted, UsageError
from wsss.pipeline import run_all
from wsss.reporting import Silent
from wsss.stopping import AGAIN

EXTRA = "new-photo"


class Told(Silent):
    """Keeps remarks; sends this process a signal at the first progress of a task."""

    def __init__(self, stop_in: str = "") -> None:
        self.remarks: list[str] = []
        self.tasks: list[str] = []
        self._stop_in = stop_in

    def begin(self, what: str, total: int, done: int = 0) -> None:
        self.tasks.append(what)

    def advance(self, count: int = 1, note: str = "") -> None:
        if self._stop_in and self.tasks[-1] == self._stop_in:
            self._stop_in = ""
            os.kill(os.getpid(), signal.SIGTERM)

    def say(self, text: str) -> None:
        self.remarks.append(text)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """The scenes, and one image that their table does not list."""
    folder = tmp_path_factory.mktemp("photos") / "photos"
    shutil.copytree(scenes, folder)
    (folder / "tags.csv").rename(folder / "photos.csv")  # a table: images without a line are left out there
    shutil.copy(next((folder / "images").iterdir()), folder / "images" / f"{EXTRA}.jpg")
    return folder


@pytest.fixture
def config(photos: Path, tiny_config: Callable[..., Config]) -> Callable[..., Config]:
    def make(**changes: Any) -> Config:
        return tiny_config(**{"data__root": photos, "classify__epochs": 1, "segment__epochs": 1, **changes})

    return make


def weights(run: Path) -> dict[str, torch.Tensor]:
    network: dict[str, torch.Tensor] = torch.load(run / "last.pt", weights_only=True)["network"]
    return network


def test_the_same_command_continues_and_ends_as_if_never_stopped(tmp_path: Path, config: Callable[..., Config]) -> None:
    told = Told()
    made = run_all(config(), tmp_path / "whole", told)
    assert made["images"] == 1
    assert [path.name for path in (Path(made["masks"]) / "labels").rglob("*.png")] == [f"{EXTRA}.png"]
    assert len(list((Path(made["val"]) / "labels").rglob("*.png"))) == 8
    page = Path(made["report"]).read_text(encoding="utf-8")
    assert all(str(tmp_path / "whole" / name) in page for name in ("cls", "seg", "val"))
    begun = [text.partition(":")[0] for text in told.remarks if text.endswith(": begins")]
    assert begun == ["1/5 check", "2/5 train-cls", "3/5 train-seg", "4/5 predict", "5/5 report"]

    for task in ("2/5 train-cls: training", "3/5 train-seg: training", "4/5 predict: masks"):
        with pytest.raises(Interrupted) as stopped:
            run_all(config(), tmp_path / "parts", Told(task))
        assert (stopped.value.fix, stopped.value.exit_status) == (AGAIN, 75)
    run_all(config(run__workers=1), tmp_path / "parts", Silent())
    for run in ("cls", "seg"):
        one, other = weights(tmp_path / "whole" / run), weights(tmp_path / "parts" / run)
        assert all(torch.equal(one[name], other[name]) for name in one)
    for folder in ("masks", "val"):
        for path in (Path(made[folder]) / "labels").rglob("*.png"):
            assert path.read_bytes() == (tmp_path / "parts" / path.relative_to(tmp_path / "whole")).read_bytes()

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").rglob("*.png")}
    told = Told()
    run_all(config(), tmp_path / "parts", told)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").rglob("*.png")}
    assert any(text.startswith("1/5 check: done before") for text in told.remarks)

    with pytest.raises(UsageError, match=r"begun with other settings: classify\.epochs 1, now 2, images null"):
        run_all(config(classify__epochs=2), tmp_path / "parts", Silent(), tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path: Path, config: Callable[..., Config]) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(UsageError, match="needs a folder of its own"):
        run_all(config(), tmp_path, Silent())


def test_what_would_stop_a_later_stage_stops_the_first(
    tmp_path: Path, photos: Path, config: Callable[..., Config]
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    mask = next((tmp_path / "photos" / "masks").iterdir())
    Image.new("P", (3, 3)).save(mask)
    out = tmp_path / "out"
    with pytest.raises(DataError, match="mask-size") as refused:
        run_all(config(data__root=tmp_path / "photos"), out, Silent())
    assert refused.value.fix.startswith(f"mend what {out / 'check.csv'} lists")
    rows = list(csv.DictReader((out / "check.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["where"] for row in rows if row["kind"] == "mask-size"] == [str(mask)]
    assert json.loads((out / "plan.json").read_text())["done"] == {}
    assert not (out / "cls").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"done": 3}'])
def test_a_broken_plan_is_named(tmp_path: Path, config: Callable[..., Config], text: str) -> None:
    from wsss.config import to_yaml

    (tmp_path / "config.yaml").write_text(to_yaml(config().anchored()))
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(DataError, match=r"plan\.json: cannot be read"):
        run_all(config(), tmp_path, Silent())


def test_a_budget_is_chosen_once_and_kept(
    tmp_path: Path, config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Continued with the same time it is not measured again; with another, or without, it is refused."""

    def timed(*asked: Any) -> Choice:
        return planned(*asked, measure=lambda config, device: 1e-3)

    monkeypatch.setattr("wsss.pipeline.planned", timed)
    given, out, told = config(), tmp_path / "out", Told(stop_in="2/5 train-cls: training")
    with pytest.raises(Interrupted):
        run_all(given, out, told, budget="1h")
    assert sum("--budget 1h:" in line for line in told.remarks) == 1
    again = Told()
    run_all(given, out, again, budget="1h")
    assert not any("--budget" in line for line in again.remarks)
    kept = json.loads((out / "plan.json").read_text())["budget"]
    assert kept["asked"] == "1h"
    for other in ("2h", None):
        with pytest.raises(UsageError, match="another budget"):
            run_all(given, out, Silent(), budget=other)
