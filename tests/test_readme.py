"""Every `wsss` command of the README, the tutorials and the presets' first lines, run in order on small data."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image

import wsss
from wsss.cli import main
from wsss.config import preset_names
from wsss.data.scenes import SceneSettings, write_scenes

ROOT = Path(__file__).parent.parent
SMALL = [
    "model.backbone=vit_tiny_patch16_224", "model.weights=none", "model.decoder_channels=8", "run.workers=0",
    "model.vit={patch_size: 8, img_size: 32, embed_dim: 24, depth: 4, num_heads: 3}",
    "augment.size=32", "classify.epochs=1", "classify.batch_size=4", "segment.epochs=1", "segment.batch_size=4",
    "maps.start_layer=2", "maps.scales=[32]", "predict.scales=[32]", "predict.crf=false", "run.device=cpu",
    "run.amp=none",
]  # fmt: skip
TRAINS = ("run", "train-cls", "train-seg", "make-pseudo", "predict", "demo")


def commands(text: str) -> list[list[str]]:
    """The arguments of each `wsss` line of a text, without comments and with continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [line.lstrip("# ") for line in lines if line.lstrip("# ").startswith("wsss ")]
    found = [line for line in found if not line.startswith("wsss submit ")]  # those run in tests/cluster
    return [shlex.split(line, comments=True)[1:] for line in found]


def code_blocks(markdown: str) -> str:
    return "\n".join(re.findall(r"```sh\n(.*?)```", markdown, flags=re.DOTALL))


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    extra = [part for pair in SMALL for part in ("--set", pair)] if words[0] in TRAINS else []
    if words[0] == "demo":
        extra += ["--train", "8", "--val", "4"]
    if words[:2] == ["serve", "label-studio"]:  # it would answer until a signal
        extra += ["--port", "0"]
        monkeypatch.setattr("wsss.serve.server.Server.serve_until", lambda server, stop: None)
    monkeypatch.setattr("sys.argv", ["wsss", *words, *extra])
    with pytest.raises(SystemExit) as left:
        main.run()
    assert left.value.code in (0, None), words


def write_coco(root: Path, photos: Path) -> None:
    """The photos as a COCO data set: one box of each tag."""
    shutil.copytree(photos / "images", root / "train2017")
    rows = [line.split(",") for line in (photos / "tags.csv").read_text().splitlines()[1:]]
    tags = sorted({tag for row in rows for tag in row[1].split()})
    content = {
        "images": [{"id": i, "file_name": Path(row[0]).name, "width": 48, "height": 32} for i, row in enumerate(rows)],
        "categories": [{"id": k + 1, "name": tag} for k, tag in enumerate(tags)],
        "annotations": [
            {"id": 100 * i + k, "image_id": i, "category_id": tags.index(tag) + 1, "bbox": [4, 4, 8, 8], "iscrowd": 0}
            for i, row in enumerate(rows)
            for k, tag in enumerate(row[1].split())
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos and tags, new photos without tags, and a small VOC data set with saliency maps."""
    write_scenes(tmp_path / "photos", train=8, val=4, seed=0, settings=SceneSettings(sizes=((32, 48),)))
    shutil.copytree(tmp_path / "photos" / "images", tmp_path / "new-photos")
    voc = tmp_path / "VOC2012"
    shutil.copytree(tmp_path / "photos" / "images", voc / "JPEGImages")
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    names = sorted(path.stem for path in (voc / "JPEGImages").iterdir())
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(names))
    table = (tmp_path / "photos" / "tags.csv").read_text().splitlines()
    (voc / "tags.csv").write_text("\n".join(line.rsplit(",", 1)[0] for line in table))
    (voc / "Saliency").mkdir()
    for name in names:
        with Image.open(voc / "JPEGImages" / f"{name}.jpg") as image:
            image.convert("L").save(voc / "Saliency" / f"{name}.png")
    shutil.copytree(voc, tmp_path / "VOCdevkit" / "VOC2012")
    write_coco(tmp_path / "coco", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_readme_commands_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = commands(code_blocks((ROOT / "README.md").read_text()))
    assert len(found) >= 7
    for words in found:
        run(words, monkeypatch)
    assert (workplace / "masks" / "labels").is_dir()
    run_python_interface(workplace, monkeypatch)


@pytest.mark.slow
def test_tutorial_commands_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(workplace / "photos", workplace / "painted" / "data" / "tissue")
    for page in ("own-photos", "label-studio", "tissue"):
        for words in commands(code_blocks((ROOT / "docs" / "tutorials" / f"{page}.md").read_text())):
            run(without_weights(words), monkeypatch)
    assert (workplace / "tissue" / "masks" / "labels").is_dir()


def without_weights(words: list[str]) -> list[str]:
    return ["none" if before == "--weights" else word for before, word in zip(["", *words], words, strict=False)]


def run_python_interface(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's first block of Python, on the runs of its commands; a scene's class takes the place of the dog."""
    shutil.copy(next((workplace / "photos" / "images").iterdir()), workplace / "photo.jpg")
    block = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)[0]
    resolve = wsss.resolve_config
    monkeypatch.setattr(wsss, "resolve_config", lambda name, words, flags: resolve(name, [*words, *SMALL], flags))
    exec(compile(block.replace('"dog"', '"bee"'), "README.md", "exec"), {})
    assert (workplace / "runs" / "cls2" / "last.pt").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", preset_names())
def test_preset_commands_run(name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSSS_VOC_ANIMALS", str(workplace / "VOC2012"))
    text = (ROOT / "configs" / f"{name}.yaml").read_text()
    found = commands(text)
    assert text.startswith("# wsss "), "a preset begins with the command that runs it"
    for words in found:
        words = [word.replace("$WSSS_VOC_ANIMALS", str(workplace / "VOC2012")) for word in words]
        run(without_weights(words), monkeypatch)
