"""Commands on random folders of good and broken parts: no traceback, no hang, and every file is counted.

    python tests/reliability/random_folders.py FIRST COUNT LOG

tries the folders FIRST to FIRST + COUNT - 1 and writes a line to LOG for each; those that LOG has already are passed
over, so that a run that was stopped continues. Each command runs in a process of its own, forked from one that has
imported everything; one that takes longer than ``SECONDS`` is a hang.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

SECONDS = 60.0
"""Limit for one command on a folder of some dozen small images, for a machine with other load."""
STATUSES = (0, 2, 3, 4)
"""Exit statuses of a command that worked, or refused its input."""
TRAINED = 10
"""One of so many folders is trained on."""
SETTINGS = """
model: {backbone: deit_tiny_distilled_patch16_224, weights: none, decoder_channels: 16,
  vit: {patch_size: 8, img_size: 32, embed_dim: 24, depth: 4, num_heads: 3}}
run: {device: cpu, workers: 0}
augment: {size: 32}
classify: {epochs: 1, batch_size: 8}
segment: {epochs: 1, rounds: 1, batch_size: 8}
maps: {scales: [32], gamma: 1.0, spread: 0}
labels: {low: 0.25, high: 0.55, pamr_iterations: 1, opening: 3}
predict: {scales: [32]}
"""
CHOSEN = {
    "classify.finetune": ("auto", "head", "top", "all"),
    "classify.epochs": ("1", "2"),
    "classify.batch_size": ("1", "3", "8", "200"),
    "segment.batch_size": ("1", "3", "8"),
    "maps.method": ("getam", "attention-gradient", "gradcam", "cam", "chefer", "legrad"),
    "maps.flip": ("true", "false"),
    "augment.size": ("32", "40"),
    "predict.scales": ("[32]", "[32, 48]"),
    "run.seed": ("0", "7"),
    "run.amp": ("auto", "none", "bf16"),
    "labels.low": ("0.1", "0.25"),
}
"""Values of config keys, of which a training gets some."""
LABELS = (
    "cat",
    "dog",
    "cat;dog",
    "",
    "nan",
    "None",
    "\"['cat', 'dog']\"",
    "\"['cat'\"",
    "cta",
    "cat dog",
    "background",
)
HEADERS = ("image,labels,split",) * 6 + ("image,labels", "labels,image,split", "image;labels;split", "file,tag", "")
SPLITS = ("train",) * 5 + ("val", "Valid", "train2017", "", "test")
ENCODINGS = ("utf-8",) * 5 + ("utf-8-sig", "utf-16", "cp1252")


def load_oddities() -> ModuleType:
    """The module beside this one, however this one was imported."""
    spec = importlib.util.spec_from_file_location("oddities", Path(__file__).with_name("oddities.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_folder(root: Path, number: int, oddities: ModuleType) -> None:
    """A data folder of random parts, of the formats folder or VOC, or of none; the same for the same number."""
    chance = random.Random(number)
    voc, tame = chance.random() < 0.3, chance.random() < 0.4
    images = root / chance.choice(["JPEGImages"] if voc else ["images", "images", "Images", "photos", "."])
    images.mkdir(parents=True)
    for make in oddities.IN_IMAGES:
        if make is oddities.good_photos or (not tame and chance.random() < 0.3):
            try:
                make(images)
            except OSError:  # this system or user cannot make it, or it is there
                continue
    for path in sorted(images.rglob("*")):
        if not tame and chance.random() < 0.3 and not path.is_dir():
            path.unlink()
    names = [str(path.relative_to(images)) for path in sorted(images.rglob("*")) if not path.is_dir()]
    if tame or chance.random() < 0.8:
        _write_table(root, names, chance, tame=tame)
    if voc:
        _write_lists(root, names, chance)
    if chance.random() < 0.3:
        classes = chance.choice([["cat", "dog"], ["dog", "cat"], ["cat"], ["cat", "cat"], ["background", "dog"], []])
        (root / "classes.txt").write_text("\n".join(classes), encoding="utf-8")
    if chance.random() < 0.5:
        oddities.masks(root)
        if voc:
            (root / "masks").rename(root / "SegmentationClass")


def _write_table(root: Path, names: list[str], chance: random.Random, *, tame: bool) -> None:
    """A table that lists most images, some twice, some by other names, with any labels."""
    few = chance.choice([LABELS[:2], LABELS[:4], *([] if tame else [LABELS, LABELS])])
    splits = chance.choice([SPLITS[:5], ("train", "val"), ("train", "Valid"), *([] if tame else [SPLITS, SPLITS])])
    header = chance.choice(HEADERS[: 8 if tame else None])
    listed = [name for name in names if tame or chance.random() < 0.9]
    if not tame:
        listed += chance.sample(["gone.jpg", "../out.jpg", "/etc/passwd", "street", "", *names[:3]], 2)
    rows = []
    for name in listed:
        cells = {
            "image": '"' + name.replace('"', '""') + '"',
            "labels": chance.choice(few),
            "split": chance.choice(splits),
        }
        separator = ";" if ";" in header else ","
        rows.append(separator.join(cells.get(column, "x") for column in header.split(separator)))
    end = chance.choice(["\n", "\r\n"])
    content = end.join([header, *rows, ""]).encode(chance.choice(ENCODINGS[: 6 if tame else None]), "replace")
    cut = not tame and chance.random() < 0.1
    (root / "tags.csv").write_bytes(content[: len(content) // 2 if cut else None])


def _write_lists(root: Path, names: list[str], chance: random.Random) -> None:
    """Split lists and annotations, some broken."""
    lists = root / "ImageSets" / chance.choice(["Segmentation", "Main", "segmentation"])
    lists.mkdir(parents=True)
    stems = [os.path.splitext(name)[0].encode("utf-8", "replace").decode() for name in names]  # noqa: PTH122
    for split in chance.sample(["train", "val", "trainval", "test"], 2):
        lines = [stem for stem in stems if chance.random() < 0.7] + ["gone"] * (chance.random() < 0.1)
        (lists / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
    if chance.random() < 0.8:
        for stem in stems:
            path = root / "Annotations" / f"{stem}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            name = chance.choice(["cat", "dog", "person", "unicorn" if chance.random() < 0.1 else "cow"])
            broken = chance.random() < 0.02
            path.write_text(f"<annotation><object><name>{name}</name></object>{'' if broken else '</annotation>'}")


class Faulty(AssertionError):
    """A command ended as no command should."""


def run_command(arguments: list[str], log: Path) -> tuple[int | None, str, str]:
    """Exit status (None: killed at the time limit), standard output and standard error of the program."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover
        os.setsid()
        for descriptor, path in ((1, log.with_suffix(".out")), (2, log)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.argv = ["wsss", *arguments]
        from wsss.cli.main import run

        status = 1
        try:
            run()
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 0
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), *_written(log)
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None, *_written(log)


def _written(log: Path) -> tuple[str, str]:
    output, error = (path.read_bytes().decode("utf-8", "replace") for path in (log.with_suffix(".out"), log))
    return output, error


def look_at(arguments: list[str], log: Path) -> tuple[int, str, str]:
    """Run a command; it must end in time, without a traceback, with a cause and a remedy where it fails."""
    status, output, error = run_command(arguments, log)
    said = f"{' '.join(arguments)}\n{error[-3000:]}"
    if status is None:
        raise Faulty(f"no end after {SECONDS:g} s: {said}")
    if status not in STATUSES or "Traceback" in error:
        raise Faulty(f"status {status}: {said}")
    if status and [line[:7] for line in error.splitlines() if line[:7] != "more:  "][-2:] != ["error: ", "fix:   "]:
        raise Faulty(f"status {status} without error and fix: {said}")
    return status, output, error


def check_counts(root: Path, report: dict[str, Any]) -> None:
    """Every file below the images is an image, or left out for a reason that is counted."""
    from wsss.data.readers.registry import find_reader

    photographs = find_reader(root).photographs(root, lambda error: None)
    known = {*photographs.files.values(), *photographs.others}
    for above, folders, files in os.walk(photographs.folder):
        links = [name for name in folders if (Path(above) / name).is_symlink()]
        for name in (*files, *links):
            path = str((Path(above) / name).relative_to(photographs.folder))
            behind = any(one.startswith(f"{path}/") for one in (*known, *photographs.tree.left_out))
            if path not in known and not behind and photographs.tree.why_left_out(path) is None:
                raise Faulty(f"{path!a} is neither read nor left out")
    if report["left_out"] != photographs.left_out():
        raise Faulty(f"left out {photographs.left_out()}, but {report['left_out']} is said")


def check_choices(run: Path, error: str) -> None:
    """What a training chose stands in its log as in its run.json."""
    choices = json.loads((run / "run.json").read_text(encoding="utf-8"))["choices"]
    said = [
        choices["device"],
        f"format {choices['format']}",
        f"trains on {choices['split']} ({choices['images']} image",
    ]
    said.append(f"tags of {choices['tags']}" if choices["tags"] else "format")
    said.append(f"{choices['steps']} step" if choices["finetune"] != "head" else "fits the head alone")
    said.append(
        f"no validation: {choices['no_validation']}"
        if choices["no_validation"]
        else f"validates on {choices['val_split']} ({choices['val_images']} image"
    )
    for words in said:
        if words not in error:
            raise Faulty(f"run.json says {words!r}, the log does not: {error}")


def try_folder(number: int, place: Path, seg: Path, oddities: ModuleType) -> list[int]:
    """Make a folder and try the commands on it; returns their exit statuses."""
    root, log, statuses = place / "data", place / "log", []
    random_folder(root, number, oddities)
    try:
        status, output, _ = look_at(["data", "check", str(root), "--json"], log)
        statuses.append(status)
        if output.strip():
            check_counts(root, json.loads(output))
        status, output, _ = look_at(["predict", str(seg), str(root), "-o", str(place / "masks"), "--json"], log)
        statuses.append(status)
        if status == 0:
            counts = json.loads(output)
            from wsss.data.dataset import open_unlabelled

            images = len(open_unlabelled(root))
            if counts["made"] + counts["unreadable"] != images:
                raise Faulty(f"{images} images, but {counts}")
            status, _, _ = look_at(["evaluate", str(place / "masks"), "--data", str(root)], log)
            statuses.append(status)
        if number % TRAINED == 0:
            statuses += _train(root, place, log, random_settings(number))
    finally:
        oddities.allow_removal(root)
        shutil.rmtree(place, ignore_errors=True)
    return statuses


def random_settings(number: int) -> list[str]:
    """Options for some config keys; the same for the same number."""
    chance = random.Random(f"settings {number}")
    chosen = {key: chance.choice(values) for key, values in CHOSEN.items() if chance.random() < 0.4}
    return [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]


def _train(root: Path, place: Path, log: Path, chosen: list[str]) -> list[int]:
    settings, run = place / "tiny.yaml", place / "run"
    settings.write_text(SETTINGS)
    options = ["--data", str(root), "-c", str(settings), "--set", "data.bad_limit=0.9", *chosen]
    status, _, error = look_at(["train-cls", *options, "-o", str(run)], log)
    statuses = [status]
    if status == 0:
        check_choices(run, error)
        labels = [
            "make-pseudo",
            str(run),
            "--data",
            str(root),
            "-o",
            str(place / "labels"),
            "--set",
            "data.bad_limit=0.9",
        ]
        statuses.append(look_at(labels, log)[0])
        options += ["--labels", str(place / "labels")]
    statuses.append(look_at(["train-seg", *options, "-o", str(place / "seg")], log)[0])
    return statuses


def tiny_network(folder: Path) -> Path:
    """A run of ``train-seg`` on generated scenes, in seconds."""
    from wsss.config import resolve
    from wsss.data.scenes import SceneSettings, write_scenes
    from wsss.training.start import train_segmenter

    settings = folder / "tiny.yaml"
    settings.write_text(SETTINGS)
    scenes = SceneSettings(classes=("cat", "dog"), sizes=((48, 64),), max_classes=2)
    write_scenes(folder / "scenes", train=4, val=2, seed=0, settings=scenes)
    train_segmenter(resolve(settings, (), {"data.root": folder / "scenes"}), folder / "seg")
    return folder / "seg"


def warm_up() -> None:
    """Import all that commands import, so that forked processes need not."""
    import torch

    import wsss.cli.main
    import wsss.cli.terminal
    import wsss.data.check
    import wsss.inference.evaluate
    import wsss.inference.labelling
    import wsss.inference.predicting
    import wsss.training.start  # noqa: F401

    torch.set_num_threads(1)


def main(first: int, count: int, log: Path) -> int:
    """Try folders; returns how many were at fault."""
    done = {json.loads(line)["folder"] for line in log.read_text().splitlines()} if log.exists() else set()
    oddities, faults = load_oddities(), 0
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"
        place = Path(scratch)
        warm_up()
        seg = tiny_network(place)
        for number in range(first, first + count):
            if number in done:
                continue
            row: dict[str, Any] = {"folder": number}
            try:
                row["statuses"] = try_folder(number, place / "one", seg, oddities)
            except Faulty as error:
                row["fault"], faults = str(error), faults + 1
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
    return faults


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(1 if main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])) else 0)
