"""Exported networks: equal to torch at every size, refused where they are not, used without torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from wsss.config import Config
from wsss.data.dataset import open_data, open_unlabelled
from wsss.data.masks import read_mask
from wsss.errors import DataError, MachineError, UsageError
from wsss.inference.compare import compare_on
from wsss.inference.export import (
    ExportedModel,
    check_sizes,
    compared,
    export_onnx,
    export_pt2,
    export_safetensors,
    pattern,
)
from wsss.inference.model_card import licence_of, model_card
from wsss.inference.predicting import predict_masks
from wsss.models.checkpoint import load_network, read_checkpoint, save_checkpoint
from wsss.models.network import Network, build_network
from wsss.models.onnx_network import OnnxNetwork
from wsss.reporting import Silent

VIT = {"patch_size": 8, "img_size": 32, "embed_dim": 24, "depth": 4, "num_heads": 3}
"""That of the fixture `small_network`, which lasts for one test only."""
CPU = torch.device("cpu")
DOCS = Path(__file__).parents[2] / "docs" / "export.md"
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


def lively(network: Network) -> Network:
    """The network with decoder scores that are large and vary over the pixels."""
    torch.manual_seed(2)
    assert network.decoder is not None
    torch.nn.init.normal_(network.decoder.classify.weight, std=3.0)
    network.supervision = ("tags",)
    return network.requires_grad_(False)


@pytest.fixture
def network(small_network: Callable[..., Network]) -> Network:
    return lively(small_network())


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of `network` for any size."""
    torch.manual_seed(0)
    built = build_network("deit_tiny_distilled_patch16_224", ("bee", "ladybird"), decoder_channels=16, vit=VIT).eval()
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    config = Config.model_validate({"augment": {"size": 32}, "predict": {"scales": [48], "flip": True}})
    done = export_onnx(lively(built), config, path, facts={"licence": "none"})
    assert done.difference < 1e-5
    assert done.differing == 0
    return path


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (31, 50), (96, 17)])
def test_equal_to_torch_at_any_size(onnx_file: Path, network: Network, size: tuple[int, int]) -> None:
    images_BHW3 = pattern(2, size)
    with torch.inference_mode():
        _, scores_BCHW = network(torch.from_numpy(images_BHW3).permute(0, 3, 1, 2).float() / 255)
    labels_BHW = OnnxNetwork(onnx_file).labels(images_BHW3)
    assert labels_BHW.shape == (2, *size)
    assert np.array_equal(labels_BHW, scores_BCHW.argmax(dim=1).numpy())
    assert len(np.unique(labels_BHW)) > 1


def test_a_frozen_size_is_found(network: Network) -> None:
    """What tracing does to a size: the model computes as if every image had that of the example."""
    module = ExportedModel(network)

    def frozen(images_BHW3: Any) -> Any:
        with torch.inference_mode():
            fixed = torch.nn.functional.interpolate(
                torch.from_numpy(images_BHW3).permute(0, 3, 1, 2).float(), size=(32, 40)
            )
            grid, labels = module(fixed.to(torch.uint8).permute(0, 2, 3, 1))
            rows, columns = (-(-side // 8) * 8 for side in images_BHW3.shape[1:3])
            grid = torch.nn.functional.interpolate(grid, size=(rows, columns))
            labels = torch.nn.functional.interpolate(labels[:, None].float(), size=images_BHW3.shape[1:3])[:, 0]
        return grid.numpy(), labels.to(torch.uint8).numpy()

    assert compared(module, frozen, [(32, 40)]) == (0.0, 0.0)
    difference, differing = compared(module, frozen, check_sizes(network, 32))
    assert difference > 0.01
    assert differing > 0.01

    def narrow(images_BHW3: Any) -> Any:
        grid, labels = frozen(images_BHW3)
        return grid, labels[:, :8]

    with pytest.raises(UsageError, match="does not run at 32 x 32"):
        compared(module, narrow, [(32, 32)])


def test_sizes_that_are_compared(network: Network) -> None:
    """None is that of the example (4 x 5 patches of 8 pixels), one is not in whole patches."""
    sizes = check_sizes(network, 32)
    assert (32, 40) not in sizes
    assert any(height % 8 and width % 8 for height, width in sizes)


def test_predict_writes_what_it_writes_of_the_run(
    tmp_path: Path, onnx_file: Path, network: Network, scenes: Path, tiny_config: Any
) -> None:
    records = open_unlabelled(scenes / "images")[:6]
    config = tiny_config(predict__scales=[32, 48], predict__flip=True)
    for name, form in (("torch", network), ("onnx", OnnxNetwork(onnx_file))):
        predict_masks(form, records, tmp_path / name, config, Silent(), device=CPU, checkpoint_sha256=name)
    files = sorted(path.relative_to(tmp_path / "torch") for path in (tmp_path / "torch").rglob("*.*"))
    assert files == sorted(path.relative_to(tmp_path / "onnx") for path in (tmp_path / "onnx").rglob("*.*"))
    both = [
        [read_mask(tmp_path / name / "labels" / f"{one.name}.png") for one in records] for name in ("torch", "onnx")
    ]
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(*both, strict=True))
    assert len({int(value) for label_HW in both[0] for value in np.unique(label_HW)}) > 1


def test_what_a_file_says(onnx_file: Path) -> None:
    exported = OnnxNetwork(onnx_file)
    assert exported.classes == ("bee", "ladybird")
    assert exported.supervision == ("tags",)
    assert exported.backbone.stride == (8, 8)
    assert exported.config.predict.scales == (48,)
    exported.require_any_size()


@pytest.mark.slow
def test_the_documented_lines_run_without_torch(tmp_path: Path, onnx_file: Path, scenes: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line and "import" not in line]) <= 10
    (tmp_path / "model.onnx").write_bytes(onnx_file.read_bytes())
    photo = sorted((scenes / "images").iterdir())[0]
    Image.open(photo).save(tmp_path / "photo.jpg")
    script = f"import sys\nsys.modules['torch'] = sys.modules['wsss'] = None  # cannot be imported\n{block}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    words = re.findall(r"^(background|bee|ladybird) (\d+) %$", done.stdout, flags=re.MULTILINE)
    assert 98 <= sum(int(share) for _, share in words) <= 102
    with Image.open(tmp_path / "mask.png") as mask, Image.open(tmp_path / "photo.jpg") as image:
        assert mask.size == image.size
        wanted = OnnxNetwork(onnx_file).labels(np.asarray(image.convert("RGB"))[None])[0]
        assert np.array_equal(np.asarray(mask), wanted)


@pytest.mark.slow
def test_eight_bits(tmp_path: Path, network: Network, scenes: Path, tiny_config: Any) -> None:
    config = tiny_config()
    whole = export_onnx(network, config, tmp_path / "whole.onnx", size=(48, 64))
    small = export_onnx(network, config, tmp_path / "small.onnx", size=(48, 64), int8=True)
    assert small.bytes < whole.bytes
    assert 0 < small.difference < 0.5
    assert "int8" in small.words()
    with pytest.raises(UsageError, match="takes images of 48 x 64"):
        OnnxNetwork(tmp_path / "small.onnx").require_any_size()


def test_compared_on_photos(onnx_file: Path, network: Network, scenes: Path, tiny_config: Any) -> None:
    tagged = open_data(scenes, split="val")
    found = compare_on(network, OnnxNetwork(onnx_file), tagged, tiny_config(), Silent())
    assert (found.images, found.masks, found.differing) == (8, 8, 0.0)
    assert found.mean_iou is not None
    assert found.mean_iou[0] == found.mean_iou[1] > 0
    assert "8 images of val at 32 px" in found.words()


def test_safetensors_take_the_place_of_a_run(tmp_path: Path, network: Network, tiny_config: Any) -> None:
    path = tmp_path / "weights.safetensors"
    export_safetensors(network, tiny_config(model__weights="/home/me/secret.pth"), path)
    assert b"secret" not in path.read_bytes()
    assert b"scenes" not in path.read_bytes()
    read, config, where = load_network(path)
    assert where == path
    assert (read.classes, read.supervision) == (network.classes, ("tags",))
    assert config.predict.scales == (48,)
    images_B3HW = torch.rand(1, 3, 32, 40)
    with torch.inference_mode():
        assert torch.equal(read(images_B3HW)[1], network(images_B3HW)[1])


def test_other_safetensors_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "b.safetensors", {"format": "pt"})
    (tmp_path / "c.safetensors").write_bytes(b"nothing of the kind")
    for name in "abc":
        with pytest.raises(DataError):
            read_checkpoint(tmp_path / f"{name}.safetensors")


def test_torch_export(tmp_path: Path, network: Network) -> None:
    done = export_pt2(network, tmp_path / "model.pt2", (32, 40))
    assert done.difference < 1e-5
    program = torch.export.load(tmp_path / "model.pt2").module()
    images_BHW3 = torch.from_numpy(pattern(5, (32, 40)))
    with torch.inference_mode():
        assert torch.equal(program(images_BHW3)[1], ExportedModel(network)(images_BHW3)[1])


def test_files_of_others_are_refused(tmp_path: Path, onnx_file: Path) -> None:
    import onnx

    def changed(**said: str | None) -> Path:
        model = onnx.load(onnx_file)
        kept = {one.key: one.value for one in model.metadata_props} | said
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {key: value for key, value in kept.items() if value is not None})
        onnx.save(model, tmp_path / "changed.onnx")
        return tmp_path / "changed.onnx"

    for said in (
        {"classes": None}, {"classes": "[1, 2]"}, {"classes": '["a"]'}, {"classes": "[" * 9999}, {"config": "[]"},
        {"stride": "[0, 8]"}, {"stride": "8"}, {"supervision": '"tags"'}, {"config": '{"model": {"backbone": 3}}'},
    ):  # fmt: skip
        with pytest.raises(DataError, match="not written by wsss export"):
            OnnxNetwork(changed(**said))
    (tmp_path / "text.onnx").write_text("nothing of the kind")
    for name in ("text.onnx", "missing.onnx"):
        with pytest.raises(DataError, match=name):
            OnnxNetwork(tmp_path / name)


def test_a_classifier_is_refused(tmp_path: Path, small_network: Callable[..., Network], tiny_config: Any) -> None:
    with pytest.raises(UsageError, match="trained for tags alone"):
        export_onnx(small_network(decoder=False), tiny_config(), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_model_that_differs_is_not_written(
    tmp_path: Path, network: Network, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsss.inference.export.compared", lambda *arguments: (0.2, 0.0))
    with pytest.raises(MachineError, match=r"differ from torch's by up to 0\.2"):
        export_pt2(network, tmp_path / "model.pt2", (32, 40))
    assert not (tmp_path / "model.pt2").exists()


def test_the_licence_follows_the_run_that_it_began_with(tmp_path: Path, network: Network, tiny_config: Any) -> None:
    for name, weights, init in (
        ("scratch", "none", None),
        ("file", "deit.pth", None),
        ("hub", "pretrained", None),
        ("next", "none", tmp_path / "hub"),
        ("lost", "none", tmp_path / "gone"),
    ):
        (tmp_path / name).mkdir()
        config = tiny_config(model__weights=weights)
        task = {"init": None if init is None else str(init)}
        save_checkpoint(tmp_path / name / "last.pt", network, config, task=task)
    said = {name: licence_of(tmp_path / name / "last.pt") for name in ("scratch", "file", "hub", "next", "lost")}
    assert "random weights" in said["scratch"]
    assert "deit.pth, whose licence wsss does not know" in said["file"]
    assert "apache-2.0" in said["hub"]
    assert said["next"] == said["hub"]
    assert said["lost"].startswith("Unknown: the run that it began with (gone)")


def test_the_card(tmp_path: Path, network: Network, tiny_config: Any) -> None:
    run = tmp_path / "run"
    run.mkdir()
    save_checkpoint(run / "last.pt", network, tiny_config())
    rows = [{"step": 1, "split": "val", "mean_iou": 0.25}, {"step": 2, "split": "val", "mean_iou": 0.5}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "broken")
    facts = {
        "split": "train",
        "images": 24,
        "choices": {"data": "/home/me/scenes", "format": "folder", "tags": "t.csv"},
    }
    (run / "run.json").write_text(json.dumps(facts))
    card = model_card(network, tiny_config(), run / "last.pt", [], {})
    for words in ("| 2 | ladybird |", "mean_iou 0.5000", "step 2", "supervision: tags", "split train: 24 images"):
        assert words in card
    assert "/home/me" not in card
