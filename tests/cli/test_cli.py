"""The program: its options, its errors, what it prints to which stream, and all commands from tags to masks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from safetensors.torch import save_file

from wsss import __version__
from wsss.cli.main import app
from wsss.config import Config, to_yaml
from wsss.data.masks import read_mask
from wsss.models.checkpoint import save_checkpoint
from wsss.outputs.manifest import read_manifest

SURFACE = Path(__file__).with_name("surface.txt")
REGENERATE = "WSSS_WRITE_SURFACE"
Program = Callable[..., Any]


def surface(command: Any, name: str) -> Iterator[str]:
    """One line for each parameter of each command."""
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            words = [parameter.name.upper()]
        else:
            words = [*parameter.opts, *parameter.secondary_opts]
        words += ["[required]"] * parameter.required + ["[repeated]"] * parameter.multiple
        default = " ".join(parameter.default) if isinstance(parameter.default, list) else parameter.default
        if isinstance(default, str | int | float | Path) and not isinstance(default, bool):
            words.append(f"[{default}]")
        yield f"{name}: {' '.join(words)}"
    for sub, child in sorted(getattr(command, "commands", {}).items()):
        yield from surface(child, f"{name} {sub}")


def test_the_surface_is_as_promised() -> None:
    """Renaming an option breaks scripts. After a deliberate change: WSSS_WRITE_SURFACE=1 pytest tests/cli."""
    now = "".join(f"{line}\n" for line in surface(typer.main.get_command(app), "wsss"))
    if os.environ.get(REGENERATE):
        SURFACE.write_text(now, encoding="utf-8")
    assert now == SURFACE.read_text(encoding="utf-8")


HELP = """
import sys
from wsss.cli.main import app
for words in {commands}:
    app([*words, "--help"], standalone_mode=False)
heavy = {{"torch", "timm", "torchvision", "cv2"}} & sys.modules.keys()
assert not heavy, heavy
"""


def test_help_imports_no_torch() -> None:
    group = typer.main.get_command(app)
    commands: list[list[str]] = [[], *([name] for name in group.commands), ["config", "show"]]  # type: ignore[attr-defined]
    script = HELP.format(commands=commands)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "train-cls" in done.stdout
    assert "--save-scores" in done.stdout


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wsss", "config", "check", "nowhere.yaml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[0].startswith("error: nowhere.yaml: no such config file")
    assert done.stderr.splitlines()[1:] == ["fix:   wsss config list"]


def test_version(wsss: Program) -> None:
    assert wsss("--version") == (0, f"wsss {__version__}\n", "")


@pytest.mark.parametrize("words", [[], ["config"]])
def test_nothing_asked_shows_the_help(wsss: Program, words: list[str]) -> None:
    done = wsss(*words)
    assert done.status == 2
    assert "Usage" in done.out + done.err
    assert "error:" not in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train-cls", "--dat", "x"], "--dat"),
        (["train-clss"], "train-clss"),
        (["train-cls", "--epochs", "many"], "--epochs"),
        (["evaluate", "x", "--data", "y", "--threshold", "2"], "threshold"),
        (["make-pseudo", "run"], "--output"),
        (["predict"], "RUN"),
    ],
)
def test_arguments_that_click_refuses(wsss: Program, words: list[str], said: str) -> None:
    done = wsss(*words)
    problem, fix = done.error()
    assert done.status == 2
    assert said.lower() in problem.lower()
    assert fix.endswith("--help")


@pytest.mark.parametrize("words", [["predict", "run", "photos"], ["make-pseudo", "run"]])
def test_another_palette_is_refused_at_once(wsss: Program, words: list[str]) -> None:
    done = wsss(*words, "-o", "out", "--palette", "rainbow")
    assert done.status == 2
    assert done.error() == ("no palette 'rainbow'; there are voc, colorblind", "--palette voc")


def test_config_show_is_a_config(wsss: Program, tmp_path: Path) -> None:
    done = wsss("config", "show", "--set", "run.seed=5")
    assert done.status == 0
    assert yaml.safe_load(done.out)["run"]["seed"] == 5
    (tmp_path / "c.yaml").write_text(done.out)
    assert wsss("config", "check", tmp_path / "c.yaml") == (0, f"{tmp_path / 'c.yaml'}: fine\n", "")


def test_config_list_and_backbones(wsss: Program) -> None:
    presets = wsss("config", "list").out.split()
    assert "demo" in presets
    for name in presets:
        assert wsss("config", "check", name).status == 0
    names = wsss("backbones", "deit_tiny*224").out.split()
    assert {"deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"} <= set(names)
    (row,) = json.loads(wsss("backbones", "resnet10t", "--details", "--json").out)
    assert row == {"name": "resnet10t", "read": "maps", "stride": 32, "prefix_tokens": 0, "heads": 0}


def test_unknown_keys(wsss: Program, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("classify: {epohcs: 3}\nlabels: {high: 2}\n")
    done = wsss("train-cls", "-c", tmp_path / "mine.yaml", "-o", tmp_path / "run")
    problem, fix = done.error()
    assert done.status == 2
    assert f"{tmp_path / 'mine.yaml'}: unknown key 'classify.epohcs' (did you mean 'classify.epochs'?)" in problem
    assert "'labels.high'" in problem
    assert fix == f"wsss config check {tmp_path / 'mine.yaml'}"
    assert not (tmp_path / "run").exists()


@pytest.fixture
def config_file(tmp_path: Path, tiny_config: Any) -> Path:
    """The tiny config without scales, which then follow the training."""
    tree = yaml.safe_load(to_yaml(tiny_config()))
    del tree["maps"]["scales"], tree["predict"]["scales"]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "tiny.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """A run of a classifier trained on eight scenes for one epoch. Read only."""
    from wsss.config import resolve
    from wsss.reporting import Silent
    from wsss.training.start import train_classifier

    vit = {"patch_size": 8, "img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}
    flags = {
        "data.root": scenes,
        "model.backbone": "vit_tiny_patch16_224",
        "model.weights": "none",
        "model.vit": vit,
        "augment.size": 32,
        "run.workers": 0,
        "run.device": "cpu",
        "classify.epochs": 1,
    }
    run = tmp_path_factory.mktemp("runs") / "cls"
    train_classifier(resolve(None, (), flags), run, Silent())
    return run


def test_usage_errors_of_training(wsss: Program, tmp_path: Path, config_file: Path, scenes: Path) -> None:
    run, base = tmp_path / "run", ("train-cls", "-c", config_file)
    done = wsss(*base)
    assert (done.status, *done.error()) == (2, "no output folder was given", "wsss train-cls --data DIR -o RUN")
    done = wsss("train-cls", "-o", run)
    assert (done.status, *done.error()) == (2, "no data folder was given", "--data DIR")
    done = wsss(*base, "-o", run, "--backbone", "vit_tiny_patch16_225")
    assert done.status == 2
    assert "vit_tiny_patch16_224" in done.error()[0]
    done = wsss(*base, "-o", run, "--train-split", "trian")
    assert done.status == 2
    assert "no split 'trian' (did you mean 'train'?)" in done.error()[0]
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    done = wsss(*base, "-o", run)
    assert done.status == 2
    assert done.error()[0] == f"{run} is in use: a run needs a folder of its own"


def test_data_errors_of_training(wsss: Program, tmp_path: Path, config_file: Path) -> None:
    run, base = tmp_path / "run", ("train-cls", "-c", config_file)
    done = wsss(*base, "-o", run, "--data", tmp_path / "nowhere")
    assert done.status == 3
    assert done.error()[0] == f"{tmp_path / 'nowhere'}: no such data folder"
    (tmp_path / "empty").mkdir()
    done = wsss(*base, "-o", run, "--data", tmp_path / "empty")
    assert done.status == 3
    assert "no data set there" in done.error()[0]
    save_file({"cls_token": torch.zeros(1, 1, 3)}, tmp_path / "w.safetensors")
    done = wsss(*base, "-o", run, "--weights", tmp_path / "w.safetensors")
    assert done.status == 3
    assert "does not fit the backbone deit_tiny_distilled_patch16_224: missing pos_embed" in done.error()[0]
    assert "cls_token is (1, 1, 3), expected (1, 1, 24)" in done.error()[0]
    done = wsss(*base, "-o", run, "--weights", tmp_path / "none.pth")
    assert done.status == 3
    assert not run.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_cuda(wsss: Program, tmp_path: Path, config_file: Path, trained: Path) -> None:
    for words in (
        ("train-cls", "-c", config_file, "-o", tmp_path / "a"),
        ("train-seg", "-c", config_file, "-o", tmp_path / "a"),
        ("make-pseudo", trained, "-c", config_file, "-o", tmp_path / "a"),
        ("predict", trained, tmp_path, "-o", tmp_path / "a"),
    ):
        done = wsss(*words, "--device", "cuda")
        assert done.status == 4
        assert done.error() == ("--device cuda: this machine has no CUDA device that torch can use", "--device cpu")
    assert not (tmp_path / "a").exists()


def test_without_pydensecrf(
    wsss: Program, tmp_path: Path, config_file: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    for words in (("make-pseudo", trained, "-c", config_file), ("predict", trained, tmp_path)):
        done = wsss(*words, "-o", tmp_path / "out", "--crf")
        assert done.status == 4
        assert done.error()[1] == "pip install 'wsss[crf]'"
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_runs(
    wsss: Program, tmp_path: Path, config_file: Path, trained: Path, scenes: Path
) -> None:
    out = tmp_path / "out"
    done = wsss("make-pseudo", tmp_path / "nowhere", "-c", config_file, "-o", out)
    assert (done.status, done.error()[0]) == (3, f"{tmp_path / 'nowhere'}: no such run")
    done = wsss("make-pseudo", trained, "-c", config_file, "-o", out, "--checkpoint", "first")
    assert (done.status, done.error()[1]) == (3, "--checkpoint best")
    (tmp_path / "fake.pt").write_text("hello")
    done = wsss("predict", tmp_path / "fake.pt", scenes / "images", "-o", out)
    assert done.status == 3
    assert "cannot be read as a checkpoint" in done.error()[0]
    done = wsss("predict", trained, scenes / "images", "-o", out)
    assert done.status == 2
    assert "cannot segment" in done.error()[0]
    done = wsss("train-seg", "--resume", trained)
    assert (done.status, done.error()[1]) == (2, f"wsss train-cls --resume {trained}")
    assert not out.exists()


def test_resume_takes_no_other_flag(wsss: Program, tmp_path: Path, trained: Path, config_file: Path) -> None:
    done = wsss("train-cls", "--resume", trained, "--lr", "1", "-c", config_file, "--set", "run.seed=1", "-o", tmp_path)
    assert done.status == 2
    problem, fix = done.error()
    assert "it takes no --lr, --config, --set, --output" in problem
    assert fix == f"--resume {trained}  # or begin a new run: -o RUN"
    done = wsss("train-seg", "--resume", trained, "--labels", tmp_path, "--init", trained)
    assert (done.status, "it takes no --init" in done.error()[0]) == (2, True)
    assert wsss("train-cls", "--resume", trained).out == f"{trained}\n"


def test_predict_finds_no_image(wsss: Program, tmp_path: Path, trained: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = wsss("predict", trained, tmp_path / "empty", "-o", tmp_path / "out")
    assert done.status == 3
    assert "no image in it" in done.error()[0]


def test_ctrl_c_leaves_with_130(wsss: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*words: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsss.config.preset_names", stop)
    done = wsss("config", "list")
    assert done.status == 130
    assert done.error()[0] == "stopped by Ctrl-C"


def test_a_disk_that_refuses(wsss: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "there")

    monkeypatch.setattr("wsss.config.preset_names", refuse)
    done = wsss("config", "list")
    fix = "choose a folder you may write to, then run the same command again"
    assert (done.status, *done.error()) == (4, "there: Permission denied", fix)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: Any) -> None:
        raise ZeroDivisionError("a bug")

    from wsss.cli.main import run

    monkeypatch.setattr("wsss.config.preset_names", fail)
    monkeypatch.setattr(sys, "argv", ["wsss", "config", "list"])
    with pytest.raises(ZeroDivisionError):
        run()


def plain(text: str) -> str:
    return " ".join(text.split())


def test_from_tags_to_masks(wsss: Program, tmp_path: Path, config_file: Path, scenes: Path) -> None:
    """train-cls, make-pseudo, evaluate, train-seg by both routes, predict, evaluate."""
    cls, pseudo, seg, masks = (tmp_path / name for name in ("cls", "pseudo", "seg", "masks"))
    done = wsss("train-cls", "-c", config_file, "-o", cls, "--epochs", "1")
    assert (done.status, done.out) == (0, f"{cls}\n")
    assert "tag_map" in plain(done.err)

    words = ("make-pseudo", cls, "-c", config_file, "-o", pseudo, "--save-scores", "--overlays", "2")
    done = wsss(*words, "--json")
    assert done.status == 0
    report = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert report["output"] == str(pseudo)
    assert (report["split"], report["images"], report["made"], report["skipped"]) == ("train", 24, 24, 0)
    assert read_manifest(pseudo)["scales"] == [46]  # 10/7 of that of the training
    assert len(list((pseudo / "overlays").iterdir())) == 2
    done = wsss(*words)
    assert (done.status, done.out) == (0, f"{pseudo}\n")
    assert "0 pseudo labels made, 24 there already" in plain(done.err)
    done = wsss(*words, "--flip")
    assert (done.status, "other settings: flip" in done.error()[0]) == (2, True)

    done = wsss("evaluate", pseudo, "--data", scenes, "--split", "train", "--json")
    assert done.status == 0
    report = json.loads(done.out)
    assert 0 <= report["mean_iou"] <= 1
    assert report["kind"] == "pseudo"
    assert "bee" in done.err
    done = wsss("evaluate", pseudo, "--data", scenes, "--split", "train", "--scores", "--json")
    assert done.status == 0
    assert json.loads(done.out)
    assert wsss("evaluate", pseudo, "--data", scenes, "--split", "train").out == ""

    done = wsss("train-seg", "-c", config_file, "-o", seg, "--labels", pseudo, "--init", cls, "--epochs", "1")
    assert (done.status, done.out) == (0, f"{seg}\n")
    assert "mean_iou" in plain(done.err)
    assert f"<h3>{pseudo}</h3>" in (seg / "report.html").read_text("utf-8")
    options = ("--init", cls, "--epochs", "1", "--no-report")
    done = wsss("train-seg", "-c", config_file, "-o", tmp_path / "e2e", *options)
    assert done.status == 0
    assert not (tmp_path / "e2e" / "report.html").exists()
    assert json.loads((tmp_path / "e2e" / "metrics.jsonl").read_text().splitlines()[0])["segmentation"] > 0
    done = wsss("train-seg", "-c", config_file, "-o", tmp_path / "scratch", "--rounds", "2", "--epochs", "1")
    assert done.status == 0
    assert read_manifest(tmp_path / "scratch" / "labels")["counts"]["images"] == 24
    assert "24 of 24 images" in (tmp_path / "scratch" / "report.html").read_text("utf-8")
    assert read_manifest(tmp_path / "scratch" / "labels")["scales"] == [46]

    done = wsss("predict", seg, scenes, "--split", "val", "-o", masks, "--json")
    assert done.status == 0
    report = json.loads(done.out)
    assert report.pop("background") + report.pop("foreground") > 0 == report.pop("ignored")
    assert report == {"output": str(masks), "images": 8, "made": 8, "skipped": 0, "unreadable": 0}
    assert read_manifest(masks)["scales"] == [32, 46]
    done = wsss("evaluate", masks, "--data", scenes, "--split", "val", "--json")
    assert (done.status, json.loads(done.out)["kind"]) == (0, "segmentation")
    done = wsss("predict", seg, scenes / "images" / "val_00003.jpg", "-o", tmp_path / "one", "--no-overlays")
    assert (done.status, done.out) == (0, f"{tmp_path / 'one'}\n")
    one, same = (read_mask(folder / "labels" / "val_00003.png") for folder in (tmp_path / "one", masks))
    assert np.array_equal(one, same)
    assert not (tmp_path / "one" / "overlays").exists()

    done = wsss("evaluate", masks, "--data", scenes, "--split", "train")
    assert done.status == 3
    assert done.error()
    done = wsss("train-seg", "-c", config_file, "-o", tmp_path / "x", "--labels", masks)
    assert (done.status, "have no label map" in done.error()[0]) == (3, True)
    assert done.error()[1].startswith("wsss make-pseudo ")


def test_choices_are_said_at_the_start_and_kept(
    wsss: Program, tmp_path: Path, config_file: Path, scenes: Path, remembering: Path
) -> None:
    """Device, threads, loader processes, layout, table, splits and numbers of images."""
    threads = torch.get_num_threads()
    machine = f"cpu, {threads} thread{'s' if threads > 1 else ''}, no loader process, float32; {scenes} (format folder"
    done = wsss("train-cls", "-c", config_file, "-o", tmp_path / "cls", "--epochs", "1")
    line = f"{machine}, tags of tags.csv): trains on train (24 images), validates on val (8 images)"
    assert done.err.splitlines().count(line) == 1
    kept = {"device": "cpu", "threads": threads, "workers": 0, "amp": "none", "data": str(scenes), "format": "folder"}
    tags = {"tags": "tags.csv", "split": "train", "images": 24}
    val = {"val_split": "val", "val_images": 8, "no_validation": None}
    steps = {"steps": 3, "finetune": "all"}
    assert json.loads((tmp_path / "cls" / "run.json").read_text())["choices"] == kept | tags | val | steps
    assert done.err.splitlines().count("trains all weights, 3 steps") == 1

    words = ("--device", "cpu", "--workers", "0")
    done = wsss("make-pseudo", remembering, "--data", scenes, "-o", tmp_path / "pseudo", *words)
    assert done.err.splitlines().count(f"{machine}, tags of tags.csv): split train, 24 images") == 1
    assert read_manifest(tmp_path / "pseudo")["choices"] == kept | tags
    done = wsss("predict", remembering, scenes, "--split", "val", "-o", tmp_path / "masks", *words)
    assert done.err.splitlines().count(f"{machine}): split val, 8 images") == 1
    assert read_manifest(tmp_path / "masks")["choices"] == kept | {"split": "val", "images": 8}
    done = wsss("predict", remembering, scenes / "images", "-o", tmp_path / "plain", *words)
    assert done.err.splitlines().count(f"{machine.removesuffix(' (format folder')}/images: 32 images") == 1
    done = wsss("evaluate", tmp_path / "masks", "--data", scenes, "--split", "val")
    assert f"{scenes} (format folder, tags of tags.csv): split val, 8 images" in done.err.splitlines()


def test_where_nothing_is_validated_the_reason_is_said(
    wsss: Program, tmp_path: Path, config_file: Path, scenes: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(scenes, data)
    shutil.rmtree(data / "masks")
    words = ("-c", config_file, "--data", data, "--epochs", "1", "--set", "classify.epochs=1")
    done = wsss("train-seg", *words, "-o", tmp_path / "seg")
    assert "trains on train (24 images), no validation: split val has no masks\n" in done.err
    done = wsss("train-cls", *words, "-o", tmp_path / "cls", "--train-split", "val")
    assert "trains on val (8 images), no validation: val is trained on\n" in done.err
    table = data / "tags.csv"
    table.write_text(table.read_text().replace(",val\n", ",test\n"))
    done = wsss("train-cls", *words, "-o", tmp_path / "cls2")
    assert (
        "trains on train (24 images), no validation: no split is called val; there is test: --val-split test\n"
        in done.err
    )
    kept = json.loads((tmp_path / "cls2" / "run.json").read_text())["choices"]
    assert kept["no_validation"] == "no split is called val; there is test: --val-split test"
    table.write_text(table.read_text().replace(",test\n", ",train\n"))
    done = wsss("train-cls", *words, "-o", tmp_path / "cls3")
    assert "trains on train (32 images), no validation: there is no other split\n" in done.err


def test_resume_takes_the_new_place_of_the_data(wsss: Program, tmp_path: Path, config_file: Path, scenes: Path) -> None:
    run, data, moved = tmp_path / "run", tmp_path / "data", tmp_path / "moved"
    shutil.copytree(scenes, data)
    assert wsss("train-cls", "-c", config_file, "--data", data, "-o", run, "--epochs", "1").status == 0
    data.rename(moved)
    done = wsss("train-cls", "--resume", run)
    assert (done.status, done.error()) == (
        3,
        (f"{data}: no such data folder; {run} began with it", f"--resume {run} --data DIR  # where it lies now"),
    )
    assert wsss("train-cls", "--resume", run, "--data", moved)[:2] == (0, f"{run}\n")
    assert wsss("train-cls", "--resume", run)[:2] == (0, f"{run}\n")
    done = wsss("train-cls", "--resume", run, "--data", moved, "--train-split", "val")
    assert (done.status, done.error()[0].rpartition("; ")[2]) == (2, "it takes no --train-split")
    (moved / "images" / "train_00003.jpg").write_bytes((moved / "images" / "train_00004.jpg").read_bytes())
    done = wsss("train-cls", "--resume", run, "--data", moved)
    assert (done.status, done.error()[0].rpartition(": ")[2]) == (3, "the image files have changed")


@pytest.fixture
def remembering(tmp_path: Path, small_network: Any, tiny_config: Any) -> Path:
    """A run of train-seg whose config says 40 and 56 px with flip, and more."""
    network = small_network()
    torch.manual_seed(2)
    torch.nn.init.normal_(network.require_decoder().classify.weight, std=3.0)
    network.supervision = ("tags",)
    config = tiny_config(
        predict__scales=[40, 56], predict__flip=True, maps__method="attention-gradient", maps__scales=[40]
    )
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / "last.pt", network, config)
    return tmp_path / "run"


def test_a_run_is_predicted_as_its_config_says(wsss: Program, tmp_path: Path, remembering: Path, scenes: Path) -> None:
    """What the run says, without a flag, gives the masks that flags of the same values give."""
    words = ("predict", remembering, scenes, "--split", "val", "--device", "cpu", "--workers", "0", "--no-overlays")
    done = wsss(*words, "-o", tmp_path / "own")
    assert done.status == 0
    assert "images at 40 and 56 px with flip, no CRF: the run's settings\n" in done.err
    made = read_manifest(tmp_path / "own")
    assert (made["scales"], made["flip"], made["crf"]) == ([40, 56], True, False)
    assert yaml.safe_load((tmp_path / "own" / "config.yaml").read_text())["predict"]["scales"] == [40, 56]
    flagged = wsss(*words, "-o", tmp_path / "flags", "--scales", "40,56", "--flip")
    assert flagged.status == 0
    default = wsss(*words, "-o", tmp_path / "default", "--set", "predict.scales=null", "--no-flip")
    assert "images at 32 and 46 px without flip, no CRF: the run's settings except predict.scales" in default.err
    assert read_manifest(tmp_path / "default")["scales"] == [32, 46]
    own, flags, other = (
        [path.read_bytes() for path in sorted((tmp_path / name / "labels").iterdir())]
        for name in ("own", "flags", "default")
    )
    assert own == flags
    assert own != other
    (tmp_path / "c.yaml").write_text("predict: {scales: [48]}\n")
    done = wsss(*words, "-o", tmp_path / "file", "-c", tmp_path / "c.yaml")
    assert "images at 48 px with flip, no CRF: the run's settings except predict.scales" in done.err


def test_a_folder_of_earlier_defaults_is_not_mixed_with_the_settings_of_the_run(
    wsss: Program, tmp_path: Path, remembering: Path, scenes: Path
) -> None:
    """A folder that an earlier version made with the defaults of the program is refused, not completed otherwise."""
    words = (
        "predict",
        remembering,
        scenes,
        "--split",
        "val",
        "--device",
        "cpu",
        "--workers",
        "0",
        "-o",
        tmp_path / "o",
    )
    earlier = ("--scales", "32", "--no-flip")
    assert wsss(*words, *earlier).status == 0
    done = wsss(*words)
    assert done.status == 2
    assert "was made with other settings: scales (was [32], now [40, 56]), flip (was false, now true)" in done.err
    done = wsss(*words, *earlier)
    assert (done.status, "0 masks made, 8 there already" in plain(done.err)) == (0, True)


def test_a_run_is_labelled_as_its_config_says(wsss: Program, tmp_path: Path, remembering: Path, scenes: Path) -> None:
    words = ("make-pseudo", remembering, "--data", scenes, "--device", "cpu", "--workers", "0", "--split", "val")
    done = wsss(*words, "-o", tmp_path / "own")
    said = "class maps by attention-gradient from block 0 at 40 px without flip, background band 0.25 to 0.55, what the"
    assert f"{said} decoder agrees with, no CRF: the run's settings\n" in done.err
    made = read_manifest(tmp_path / "own")
    assert (made["method"], made["scales"], made["low"], made["pamr_iterations"]) == (
        "attention-gradient",
        [40],
        0.25,
        2,
    )
    done = wsss(*words, "-o", tmp_path / "cam", "--method", "cam", "--set", "labels.high=0.6")
    assert "class maps by cam" in done.err
    assert done.err.count("the run's settings except maps.method, labels.high\n") == 1
    done = wsss(*words, "-o", tmp_path / "x", "--set", "labels.low=0.58")
    assert (done.status, done.error()[0]) == (
        2,
        "the command line: 'labels': low must not exceed high, got 0.58 > 0.55",
    )
    done = wsss(*words, "-o", tmp_path / "x", "--start-layer", "9")
    assert (done.status, done.error()[0]) == (
        2,
        "maps.start_layer 9: deit_tiny_distilled_patch16_224 has 4 blocks, from 0 to 3",
    )
    assert not (tmp_path / "x").exists()


def test_a_run_that_wants_the_crf_says_how_to_do_without(
    wsss: Program, tmp_path: Path, small_network: Any, tiny_config: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    save_checkpoint(tmp_path / "run.pt", small_network(), tiny_config(predict__crf=True))
    words = ("predict", tmp_path / "run.pt", scenes, "--split", "val", "-o", tmp_path / "o", "--device", "cpu")
    done = wsss(*words)
    assert (done.status, done.error()[1]) == (4, "pip install 'wsss[crf]', or --no-crf")
    assert not (tmp_path / "o").exists()
    assert wsss(*words, "--no-crf", "--workers", "0").status == 0


def test_the_config_written_beside_a_run_repeats_it(
    wsss: Program, tmp_path: Path, config_file: Path, tiny_config: Any
) -> None:
    words = ("--epochs", "1", "--seed", "3", "--lr", "0.01", "--size", "24", "--amp", "bf16")
    assert wsss("train-cls", "-c", config_file, "-o", tmp_path / "a", *words).status == 0
    written = Config.model_validate(yaml.safe_load((tmp_path / "a" / "config.yaml").read_text()))
    assert (written.classify.epochs, written.run.seed, written.classify.lr) == (1, 3, 0.01)
    assert (written.augment.size, written.run.amp) == (24, "bf16")
    assert wsss("train-cls", "-c", tmp_path / "a" / "config.yaml", "-o", tmp_path / "b").status == 0
    first, second = (torch.load(tmp_path / name / "last.pt", weights_only=True)["network"] for name in "ab")
    assert all(torch.equal(value, second[key]) for key, value in first.items())
