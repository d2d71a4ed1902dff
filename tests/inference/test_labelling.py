"""Pseudo labels on disk: what is written, skipped, made again and refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from wsss.config import Config, to_yaml
from wsss.data.dataset import open_data
from wsss.data.images import read_image
from wsss.data.masks import IGNORE_INDEX, read_mask, write_mask
from wsss.data.records import TaggedSet
from wsss.data.scaled import ScaledImages, load_batches
from wsss.errors import DataError, UsageError
from wsss.inference.labelling import PIXELS_AT_ONCE, Wanted, make_pseudo_labels
from wsss.labels.recipe import Refined, label_images, refine_scores
from wsss.maps.generate import multiscale_scores
from wsss.maps.recorder import MapSettings
from wsss.models.averaged import log_label_probabilities
from wsss.models.network import Network
from wsss.outputs.journal import read_journal
from wsss.outputs.manifest import read_manifest
from wsss.outputs.pictures import key
from wsss.reporting import Reporter, Silent

CPU = torch.device("cpu")
PIXELS = 56 * 40
"""Pixels of a scene at the scale of these tests."""
needs_pydensecrf = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None,
    reason="pydensecrf is not installed: pip install 'wsss[crf]'",
)
Make = Callable[..., dict[str, int]]


@pytest.fixture
def network(small_network: Callable[..., Network]) -> Network:
    network = small_network(decoder=False)
    network.supervision = ("tags",)
    torch.manual_seed(1)
    for block in network.backbone.vit.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.3)
    return network


@pytest.fixture
def tagged(scenes: Path) -> TaggedSet:
    return open_data(scenes, split="val")


@pytest.fixture
def make(network: Network, tagged: TaggedSet, tiny_config: Any) -> Make:
    def run(
        out: Path,
        config: Config | None = None,
        tagged: TaggedSet = tagged,
        reporter: Reporter | None = None,
        **wanted: Any,
    ) -> dict[str, int]:
        return make_pseudo_labels(
            network,
            tagged,
            out,
            config or tiny_config(),
            reporter or Silent(),
            device=CPU,
            checkpoint_sha256="f00d",
            wanted=Wanted(**wanted),
        )

    return run


def labels(out: Path) -> dict[str, Any]:
    return {path.stem: read_mask(path) for path in sorted((out / "labels").glob("*.png"))}


def same(first: Path, second: Path) -> bool:
    ours, theirs = labels(first), labels(second)
    return ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_what_is_written(tmp_path: Path, make: Make, tagged: TaggedSet, tiny_config: Any) -> None:
    config = tiny_config()
    counts = make(tmp_path / "out", config)
    assert (counts["images"], counts["made"], counts["skipped"]) == (8, 8, 0)
    written = labels(tmp_path / "out")
    assert list(written) == [record.name for record in tagged.records]
    for record in tagged.records:
        label_HW = written[record.name]
        assert label_HW.shape == read_image(record.image).shape[:2]
        assert set(np.unique(label_HW)) <= {0, IGNORE_INDEX, *(tag + 1 for tag in record.tags)}
        with Image.open(tmp_path / "out" / "labels" / f"{record.name}.png") as image:
            assert image.mode == "P"
    every = np.concatenate([label_HW.ravel() for label_HW in written.values()])
    assert counts["background"] == (every == 0).sum() > 0
    assert counts["ignored"] == (every == IGNORE_INDEX).sum() > 0
    assert counts["foreground"] == len(every) - counts["background"] - counts["ignored"] > 0
    manifest = read_manifest(tmp_path / "out")
    assert manifest["kind"] == "pseudo"
    assert manifest["classes"] == ["bee", "ladybird"]
    assert manifest["checkpoint_sha256"] == "f00d"
    assert manifest["counts"] == {key: counts[key] for key in ("images", "background", "foreground", "ignored")}
    assert (tmp_path / "out" / "config.yaml").read_text() == to_yaml(config)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "labels",
        "config.yaml",
        "journal.jsonl",
        "manifest.json",
    }
    journal = read_journal(tmp_path / "out")
    assert list(journal) != []
    for record in tagged.records:
        entry = journal[record.name]
        path = tmp_path / "out" / "labels" / f"{record.name}.png"
        assert entry.files == {f"labels/{record.name}.png": hashlib.sha256(path.read_bytes()).hexdigest()}
        assert entry.pixels == {int(i): int((written[record.name] == i).sum()) for i in np.unique(written[record.name])}
        assert entry.tags == record.tags


def test_a_label_is_the_recipe_of_its_scores(
    tmp_path: Path, make: Make, network: Network, tagged: TaggedSet, tiny_config: Any
) -> None:
    """Each label equals the recipe's functions applied to its image here."""
    config = tiny_config(maps__scales=[32, 48], maps__flip=True)
    make(tmp_path / "out", config)
    written = labels(tmp_path / "out")
    from torchvision.transforms.v2 import functional as F

    for record in tagged.records[:4]:
        image_3HW = torch.from_numpy(read_image(record.image)).permute(2, 0, 1)
        high = image_3HW.shape[1] > image_3HW.shape[2]
        shapes = [(40, 24), (56, 40)] if high else [(24, 40), (40, 56)]
        scaled = [F.resize_image(image_3HW, list(shape), antialias=True)[None].float() / 255 for shape in shapes]
        present_K = torch.from_numpy(tagged.present(record))
        _, scores = multiscale_scores(network, scaled, present_K[None], MapSettings.of(config.maps), flip=True)
        size = (image_3HW.shape[1], image_3HW.shape[2])
        expected_HW = label_images(image_3HW[None].float() / 255, scores, size, config.labels)[0].numpy()
        assert (written[record.name] != expected_HW).mean() < 0.002


def test_the_batch_size_changes_nothing(tmp_path: Path, make: Make, tiny_config: Any) -> None:
    for size in (1, 3, 8):
        make(tmp_path / str(size), tiny_config(run__batch_pixels=size * 48**2))
    ours, theirs, others = (labels(tmp_path / str(size)) for size in (1, 3, 8))
    for name, label_HW in ours.items():
        for other in (theirs, others):
            assert (label_HW != other[name]).mean() < 0.002  # sums of floats in another order


def test_it_runs_without_the_masks(tmp_path: Path, make: Make, scenes: Path, tiny_config: Any) -> None:
    """Labels are made from tags alone: they are the same when the mask folder is deleted."""
    root = tmp_path / "bare"
    shutil.copytree(scenes, root, ignore=shutil.ignore_patterns("masks"))
    make(tmp_path / "with")
    make(tmp_path / "without", tiny_config(data__root=root), tagged=open_data(root, split="val"))
    assert same(tmp_path / "with", tmp_path / "without")


def test_what_is_there_is_skipped(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "out")
    files = sorted((tmp_path / "out" / "labels").iterdir())
    stamps = [path.stat().st_mtime_ns for path in files]
    files[3].unlink()
    counts = make(tmp_path / "out")
    assert (counts["made"], counts["skipped"]) == (1, 7)
    after = [path.stat().st_mtime_ns for path in files]
    assert [first == second for first, second in zip(stamps, after, strict=True)] == [i != 3 for i in range(8)]
    counts = make(tmp_path / "out")
    assert (counts["made"], counts["skipped"]) == (0, 8)


def test_other_settings_are_refused(tmp_path: Path, make: Make, tiny_config: Any) -> None:
    make(tmp_path / "out")
    before = labels(tmp_path / "out")
    with pytest.raises(UsageError) as caught:
        make(tmp_path / "out", tiny_config(labels__low=0.1, maps__method="cam"))
    assert "was made with other settings" in caught.value.problem
    assert 'method (was "getam", now "cam")' in caught.value.problem
    assert "low (was 0.25, now 0.1)" in caught.value.problem
    assert "--overwrite" in caught.value.fix
    assert before.keys() == labels(tmp_path / "out").keys()
    make(tmp_path / "out", tiny_config(run__batch_pixels=48**2, run__workers=1))  # these settings do not change labels


def test_changed_tags_and_images_are_labelled_again(
    tmp_path: Path, make: Make, tagged: TaggedSet, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image with changed tags is labelled again; added images are labelled too."""
    first, second, *rest = tagged.records
    fewer = replace(tagged, records=(first, *rest))
    make(tmp_path / "out", tagged=fewer)
    photo = tmp_path / "photo.png"
    Image.fromarray(255 - read_image(rest[0].image)).save(photo)
    retagged = replace(first, tags=(0,) if first.tags != (0,) else (1,))
    now = replace(tagged, records=(retagged, second, replace(rest[0], image=photo), *rest[1:]))
    remarks = Remarks()
    counts = make(tmp_path / "out", tagged=now, reporter=remarks)
    assert (counts["made"], counts["skipped"]) == (3, 5)
    assert remarks.said == [f"2 images or their tags have changed ({first.name}, {rest[0].name}); made again"]
    make(tmp_path / "fresh", tagged=now)
    assert same(tmp_path / "out", tmp_path / "fresh")
    assert make(tmp_path / "out", tagged=now)["made"] == 0
    make(tmp_path / "out", tagged=fewer)  # labels of images that are not in the set now are kept
    assert make(tmp_path / "out", tagged=now)["made"] >= 1


class Remarks(Silent):
    """A reporter that stores the messages."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def test_changed_saliency_maps_are_used(tmp_path: Path, make: Make, tagged: TaggedSet, tiny_config: Any) -> None:
    def saliency(folder: str, level: int) -> Config:
        for record in tagged.records:
            saliency_HW = np.full(read_image(record.image).shape[:2], level, dtype=np.uint8)
            saliency_HW[:3, :level] = 7  # files of other lengths
            write_mask(tmp_path / folder / f"{record.name}.png", saliency_HW)
        return tiny_config(data__saliency=tmp_path / folder)

    assert make(tmp_path / "out", saliency("all", 200))["made"] == 8
    shutil.copytree(tmp_path / "all", tmp_path / "moved")
    assert make(tmp_path / "out", tiny_config(data__saliency=tmp_path / "moved"))["made"] == 0
    assert make(tmp_path / "out", saliency("none", 5))["made"] == 8


def test_folders_of_others_are_left_alone(tmp_path: Path, make: Make) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds other files"):
        make(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
    (tmp_path / "empty").mkdir()
    assert make(tmp_path / "empty")["made"] == 8
    (tmp_path / "file").write_text("")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is a file, expected a folder"):
            make(tmp_path / "file", overwrite=overwrite)


def test_a_broken_manifest(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json: cannot be read"):
        make(tmp_path / "out")
    assert make(tmp_path / "out", overwrite=True)["made"] == 8


def test_overwrite_makes_all_again(tmp_path: Path, make: Make, tiny_config: Any) -> None:
    make(tmp_path / "out")
    config = tiny_config(labels__low=0.0, labels__high=0.9)
    assert make(tmp_path / "out", config, overwrite=True)["made"] == 8
    make(tmp_path / "fresh", config)
    assert same(tmp_path / "out", tmp_path / "fresh")
    assert read_manifest(tmp_path / "out")["high"] == 0.9


class Stopping(Silent):
    """A reporter that raises KeyboardInterrupt after ``images`` images."""

    def __init__(self, images: int) -> None:
        self.images = images

    def advance(self, count: int = 1, note: str = "") -> None:
        self.images -= count
        if self.images == 0:
            raise KeyboardInterrupt


def test_an_overwrite_cut_short_leaves_no_old_label(tmp_path: Path, make: Make, tiny_config: Any) -> None:
    """No label of the old settings may be left in a folder whose manifest has the new ones."""
    make(tmp_path / "out")
    config = tiny_config(maps__method="cam", run__batch_pixels=48**2)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "out", config, overwrite=True, reporter=Stopping(3))
    left = labels(tmp_path / "out")
    assert 3 <= len(left) < 8
    assert not list((tmp_path / "out").rglob("*.tmp"))
    counts = make(tmp_path / "out", config)
    assert (counts["made"], counts["skipped"]) == (8 - len(left), len(left))
    make(tmp_path / "fresh", config)
    assert same(tmp_path / "out", tmp_path / "fresh")


def test_scores_are_small_and_read_back(tmp_path: Path, make: Make, tagged: TaggedSet) -> None:
    make(tmp_path / "out", scores=True)
    for record in tagged.records:
        shape = read_image(record.image).shape[:2]
        with np.load(tmp_path / "out" / "scores" / f"{record.name}.npz") as file:
            assert file["scores"].dtype == np.uint8
            grid = (7, 5) if shape[0] > shape[1] else (5, 7)
            assert file["scores"].shape == (len(record.tags), *grid)
            assert file["classes"].tolist() == list(record.tags)
            assert file["size"].tolist() == list(shape)
            assert all(score.max() == 255 for score in file["scores"])


def test_scores_asked_for_later_are_made(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "out")
    assert make(tmp_path / "out", scores=True)["made"] == 8
    assert make(tmp_path / "out", scores=True)["made"] == 0
    assert make(tmp_path / "out")["made"] == 0


@pytest.mark.parametrize(("asked", "drawn"), [(0, 0), (1, 1), (3, 3), (8, 8), (50, 8)])
def test_as_many_pictures_as_asked(tmp_path: Path, make: Make, asked: int, drawn: int) -> None:
    make(tmp_path / "out", overlays=asked)
    assert len(list((tmp_path / "out").glob("overlays/*.jpg"))) == drawn


def test_pictures_asked_for_later_are_drawn_and_scores_stay(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "out", scores=True)
    assert make(tmp_path / "out", overlays=3)["made"] == 3
    assert len(list((tmp_path / "out").glob("overlays/*.jpg"))) == 3
    assert len(list((tmp_path / "out").glob("scores/*.npz"))) == 8
    assert make(tmp_path / "out", overlays=3, scores=True)["made"] == 0


def test_a_picture_has_a_key_of_the_classes(tmp_path: Path, make: Make, tagged: TaggedSet) -> None:
    make(tmp_path / "out", overlays=1)
    name = tagged.records[0].name
    drawn_HW3 = read_image(tmp_path / "out" / "overlays" / f"{name}.jpg")
    key_HW3 = key(read_mask(tmp_path / "out" / "labels" / f"{name}.png"), tagged.classes, drawn_HW3.shape[1])
    assert np.abs(drawn_HW3[-len(key_HW3) :].astype(int) - key_HW3).mean() < 6  # a JPEG


def test_images_larger_than_the_working_area(
    tmp_path: Path, make: Make, tagged: TaggedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsss.labels.recipe.WORKING_AREA", 24)
    make(tmp_path / "out")
    for record in tagged.records:
        label_HW = read_mask(tmp_path / "out" / "labels" / f"{record.name}.png")
        assert label_HW.shape == read_image(record.image).shape[:2]


def test_saliency(tmp_path: Path, make: Make, tagged: TaggedSet, tiny_config: Any) -> None:
    """The left half is salient; the right half is background, except for mined pixels."""
    for record in tagged.records:
        saliency_HW = np.zeros_like(read_image(record.image)[..., 0])
        saliency_HW[:, : saliency_HW.shape[1] // 2] = 255
        write_mask(tmp_path / "saliency" / f"{record.name}.png", saliency_HW)
    config = tiny_config(data__saliency=tmp_path / "saliency", labels__mining_quantile=1.0)
    make(tmp_path / "out", config)
    for label_HW in labels(tmp_path / "out").values():
        middle = label_HW.shape[1] // 2
        assert not label_HW[:, middle:].any()
        assert (label_HW[:, :middle] == IGNORE_INDEX).any()
    assert read_manifest(tmp_path / "out")["saliency"] is True
    assert read_manifest(tmp_path / "out")["supervision"] == ["tags", "saliency maps"]
    with pytest.raises(UsageError, match="saliency"):
        make(tmp_path / "out")


@pytest.mark.parametrize("workers", [0, 1])
def test_saliency_that_does_not_fit(
    tmp_path: Path, make: Make, tagged: TaggedSet, tiny_config: Any, workers: int
) -> None:
    (tmp_path / "saliency").mkdir()
    config = tiny_config(data__saliency=tmp_path / "saliency", run__workers=workers)
    with pytest.raises(DataError, match="8 of 8 images of val have no saliency map"):
        make(tmp_path / "out", config)
    for record in tagged.records:
        write_mask(tmp_path / "saliency" / f"{record.name}.png", np.zeros((3, 4), dtype=np.uint8))
    with pytest.raises(DataError, match="8 of 8 images of val have a saliency map of another size"):
        make(tmp_path / "out", config)
    assert not (tmp_path / "out").exists()
    for record in tagged.records:
        shape = read_image(record.image).shape
        Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(tmp_path / "saliency" / f"{record.name}.png")
    with pytest.raises(DataError, match="must be a palette or grey PNG"):
        make(tmp_path / "out", config)


class Vanishing(Silent):
    """A reporter that deletes a file after the first image."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def advance(self, count: int = 1, note: str = "") -> None:
        self.path.unlink(missing_ok=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_vanishes_on_the_way(
    tmp_path: Path, make: Make, scenes: Path, tiny_config: Any, workers: int
) -> None:
    """The error names the image, also from a worker process; the same command labels the rest once it is back."""
    root = tmp_path / "data"
    shutil.copytree(scenes, root)
    tagged = open_data(root, split="val")
    config = tiny_config(data__root=root, run__workers=workers, run__batch_pixels=48**2)
    last = ScaledImages(tagged.records, (48,), (8, 8), 1).batches[-1][0].image
    content = last.read_bytes()
    with pytest.raises(DataError, match=rf"{last.name}: unreadable image") as caught:
        make(tmp_path / "out", config, tagged=tagged, reporter=Vanishing(last))
    assert caught.value.fix == f"replace or delete {last}"
    last.write_bytes(content)
    made = len(labels(tmp_path / "out"))
    assert made >= 1
    assert make(tmp_path / "out", config, tagged=tagged)["made"] == 8 - made


@needs_pydensecrf
@pytest.mark.parametrize("background", ["power", "band"])
def test_crf(tmp_path: Path, make: Make, tiny_config: Any, tagged: TaggedSet, background: str) -> None:
    few = TaggedSet(root=tagged.root, split="val", classes=tagged.classes, records=tagged.records[:3])
    plain, crf = (tiny_config(labels__background=background, labels__crf=on) for on in (False, True))
    make(tmp_path / "plain", plain, tagged=few)
    make(tmp_path / "crf", crf, tagged=few)
    assert not same(tmp_path / "plain", tmp_path / "crf")
    for record in few.records:
        values = set(np.unique(read_mask(tmp_path / "crf" / "labels" / f"{record.name}.png")))
        assert values <= {0, IGNORE_INDEX, *(tag + 1 for tag in record.tags)}
        assert background == "band" or IGNORE_INDEX not in values
    assert read_manifest(tmp_path / "crf")["crf"] is True


@needs_pydensecrf
def test_the_number_of_processes_changes_no_byte(
    tmp_path: Path, make: Make, tiny_config: Any, tagged: TaggedSet
) -> None:
    few = TaggedSet(root=tagged.root, split="val", classes=tagged.classes, records=tagged.records[:5])
    for workers in (0, 1, 2):
        config = tiny_config(labels__crf=True, run__workers=workers)
        make(tmp_path / str(workers), config, tagged=few, overlays=5, scores=True)
    written = [path.relative_to(tmp_path / "0") for path in (tmp_path / "0").rglob("*.[pjn][npn][gz]")]
    assert len(written) == 15
    for name in written:
        assert len({(tmp_path / str(workers) / name).read_bytes() for workers in (0, 1, 2)}) == 1, name


def test_without_the_crf_no_process_is_started(
    tmp_path: Path, make: Make, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("wsss.processes.subprocess.Popen")
    make(tmp_path / "out", tiny_config(run__workers=2))
    if importlib.util.find_spec("pydensecrf") is not None:
        with pytest.raises(AttributeError, match="Popen"):
            make(tmp_path / "crf", tiny_config(run__workers=2, labels__crf=True))


@pytest.mark.skipif(sys.platform != "linux", reason="counts the children of this process in /proc")
@needs_pydensecrf
def test_ctrl_c_leaves_no_process(tmp_path: Path, make: Make, tiny_config: Any) -> None:
    def children() -> set[str]:
        return set(" ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split())

    before = children()
    with pytest.raises(KeyboardInterrupt):
        make(
            tmp_path / "out",
            tiny_config(labels__crf=True, run__workers=2, run__batch_pixels=48**2),
            reporter=Stopping(1),
        )
    assert children() == before
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_a_failure_names_its_image(
    tmp_path: Path, make: Make, tagged: TaggedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(label_HW: np.ndarray[Any, Any]) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wsss.outputs.folder.encode_mask", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        make(tmp_path / "out")
    assert any(caught.value.__notes__ == [f"while working on {record.name}"] for record in tagged.records)


def test_the_manifest_is_plain_json(tmp_path: Path, make: Make) -> None:
    make(tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert json.loads(text)["scales"] == [48]
    assert text.endswith("}\n")


@pytest.mark.parametrize("decoder", [False, True])
def test_images_refined_together_are_labelled_as_if_each_were_alone(
    tmp_path: Path,
    small_network: Callable[..., Network],
    tagged: TaggedSet,
    tiny_config: Any,
    monkeypatch: pytest.MonkeyPatch,
    decoder: bool,
) -> None:
    """Refining several images together, as on a GPU, gives the labels of refining one by one."""
    network, groups = small_network(decoder=decoder), []
    config = tiny_config(run__batch_pixels=8 * 48**2, maps__start_layer=2)

    def counted(images_B3HW: Tensor, *rest: Any, **more: Any) -> Refined:
        groups.append(len(images_B3HW))
        return refine_scores(images_B3HW, *rest, **more)

    monkeypatch.setattr("wsss.inference.labeller.refine_scores", counted)
    for pixels in (1, 1 << 22):
        monkeypatch.setitem(PIXELS_AT_ONCE, "cpu", pixels)
        out = tmp_path / str(pixels)
        make_pseudo_labels(network, tagged, out, config, Silent(), device=CPU, checkpoint_sha256="f00d")
    alone, together = labels(tmp_path / "1"), labels(tmp_path / str(1 << 22))
    assert groups[: len(tagged)] == [1] * len(tagged)
    assert sum(groups[len(tagged) :]) == len(tagged)
    assert max(groups) > 2
    for name, label_HW in alone.items():
        assert np.array_equal(label_HW, together[name])


def test_labels_use_the_decoder_of_a_run(
    tmp_path: Path, small_network: Callable[..., Network], tagged: TaggedSet, tiny_config: Any
) -> None:
    network = small_network()
    bias = network.require_decoder().classify.bias
    assert bias is not None
    bias.data = torch.tensor([20.0, 0.0, 0.0])  # probability near 1 for the background everywhere

    def run(out: str, **changes: Any) -> Path:
        config = tiny_config(**changes)
        make_pseudo_labels(network, tagged, tmp_path / out, config, Silent(), device=CPU, checkpoint_sha256="f00d")
        return tmp_path / out

    agreed, alone = run("agreed"), run("alone", labels__decoder=False)
    assert not same(agreed, alone)
    assert {0, IGNORE_INDEX} >= {value for label_HW in labels(agreed).values() for value in np.unique(label_HW)}
    assert any(((label_HW > 0) & (label_HW < IGNORE_INDEX)).any() for label_HW in labels(alone).values())
    made_by = {path: read_manifest(path) for path in (agreed, alone)}
    assert (made_by[agreed]["decoder"], made_by[agreed]["opening"]) == (True, 0)  # the settings that took effect
    assert (made_by[alone]["decoder"], made_by[alone]["opening"]) == (False, tiny_config().labels.opening)


def test_maps_and_decoder_share_their_passes(
    tmp_path: Path, small_network: Callable[..., Network], tagged: TaggedSet, tiny_config: Any
) -> None:
    """The backbone runs as often as without a decoder; labels equal those of separate passes for maps and decoder."""
    network = small_network()
    torch.nn.init.normal_(network.require_decoder().classify.weight, std=1.0)
    passes: list[None] = []
    network.backbone.register_forward_hook(lambda *_: passes.append(None))

    def run(out: str, config: Config) -> int:
        passes.clear()
        make_pseudo_labels(network, tagged, tmp_path / out, config, Silent(), device=CPU, checkpoint_sha256="f00d")
        return len(passes)

    config = tiny_config(maps__flip=True, maps__start_layer=2)
    assert run("agreed", config) == run("alone", tiny_config(maps__flip=True, labels__decoder=False)) > 0
    written = labels(tmp_path / "agreed")
    for batch in load_batches(ScaledImages(tagged.records, [48], network.backbone.stride, 1, images=True), 0):
        (record,), (image_HW3,), (size,) = batch.records, batch.images, batch.sizes
        present_BK = torch.from_numpy(tagged.present(record))[None]
        reading = MapSettings.of(config.maps)
        _, scores = multiscale_scores(network, batch.at_scales(CPU), present_BK, reading, flip=True)
        grid_BChw = log_label_probabilities(network, batch.at_scales(CPU), flip=True)
        images_B3HW = image_HW3.permute(2, 0, 1)[None].float() / 255
        expected_HW = label_images(images_B3HW, scores, size, config.labels, log_probabilities_BChw=grid_BChw)[0]
        assert (written[record.name] != expected_HW.numpy()).mean() < 0.002
