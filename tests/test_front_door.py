"""The Python interface: lazy names, one image in memory, the same pixels as the commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import wsss
from wsss.config import Config
from wsss.data.dataset import open_data
from wsss.data.images import read_image
from wsss.data.masks import read_mask
from wsss.data.records import TaggedSet
from wsss.errors import DataError, UsageError
from wsss.inference.inputs import image_array
from wsss.inference.labelling import make_pseudo_labels
from wsss.inference.predicting import predict_masks
from wsss.models.checkpoint import load_network, save_checkpoint
from wsss.models.network import Network
from wsss.reporting import Silent

CPU = torch.device("cpu")
EXAMPLE = Path(__file__).parents[1] / "examples" / "python_interface.py"


@pytest.fixture
def run(tmp_path: Path, small_network: Callable[..., Network], tiny_config: Any) -> Path:
    """A run of train-seg whose decoder predicts all classes."""
    network = small_network()
    torch.manual_seed(2)
    torch.nn.init.normal_(network.require_decoder().classify.weight, std=3.0)
    network.supervision = ("tags",)
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / "last.pt", network, tiny_config())
    return tmp_path / "run"


@pytest.fixture
def tagged(scenes: Path) -> TaggedSet:
    return open_data(scenes, split="val")


def test_import_is_lazy() -> None:
    """`import wsss` does not import torch; unknown names are errors."""
    code = "import sys, wsss; dir(wsss); assert not {'torch', 'timm', 'cv2', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert set(wsss.__all__) <= set(dir(wsss))
    for name in wsss.__all__:
        assert getattr(wsss, name) is not None
    with pytest.raises(AttributeError, match="'Segmentor'"):
        wsss.Segmentor  # noqa: B018


def test_predict_gives_the_pixels_of_the_command(
    tmp_path: Path, run: Path, tagged: TaggedSet, tiny_config: Any
) -> None:
    network, _, _ = load_network(run)
    out = tmp_path / "out"
    predict_masks(network, tagged.records, out, tiny_config(), Silent(), device=CPU, checkpoint_sha256="f00d")
    segmenter = wsss.Segmenter.load(run, device="cpu", scales=[48])
    assert segmenter.classes == tagged.classes
    seen = set()
    for record in tagged.records:
        expected_HW = read_mask(tmp_path / "out" / "labels" / f"{record.name}.png")
        for image in (record.image, str(record.image), read_image(record.image)):
            prediction = segmenter.predict(image)
            assert (prediction.label_HW != expected_HW).mean() < 0.002  # sums of floats in another order
            assert prediction.label_HW.dtype == np.uint8
        seen |= set(np.unique(expected_HW).tolist())
    assert len(seen) > 1


def test_label_gives_the_pixels_of_the_command(tmp_path: Path, run: Path, tagged: TaggedSet, tiny_config: Any) -> None:
    network, _, _ = load_network(run)
    config: Config = tiny_config()
    make_pseudo_labels(network, tagged, tmp_path / "out", config, Silent(), device=CPU, checkpoint_sha256="f00d")
    labeller = wsss.Labeller(network, config, CPU)
    for record in tagged.records:
        expected_HW = read_mask(tmp_path / "out" / "labels" / f"{record.name}.png")
        names = [tagged.classes[tag] for tag in record.tags]
        assert (labeller.label(record.image, names) != expected_HW).mean() < 0.002
        scores = labeller.maps(record.image, names)
        assert list(scores) == names
        assert all(score_hw.min() >= 0 and score_hw.max() == 1 for score_hw in scores.values())


def test_a_labeller_takes_settings_as_the_command_line_does(run: Path, tagged: TaggedSet) -> None:
    labeller = wsss.Labeller.load(run, device="cpu", settings=["maps.method=cam", "maps.scales=[48]"])
    assert labeller.config.maps.method == "cam"
    assert labeller.label(tagged.records[0].image, []).max() == 0
    with pytest.raises(UsageError, match="'lion' is no class"):
        labeller.label(tagged.records[0].image, ["lion"])
    with pytest.raises(UsageError, match="unknown key"):
        wsss.Labeller.load(run, settings=["maps.metod=cam"])


def test_a_run_is_loaded_with_its_own_settings(
    tmp_path: Path, small_network: Callable[..., Network], tiny_config: Any
) -> None:
    config = tiny_config(predict__scales=[40, 56], predict__flip=True, maps__flip=True, maps__method="chefer")
    save_checkpoint(tmp_path / "last.pt", small_network(), config)
    segmenter = wsss.Segmenter.load(tmp_path / "last.pt", device="cpu")
    assert (segmenter.scales, segmenter.config.predict) == ((40, 56), config.predict)
    assert segmenter.uses == "images at 40 and 56 px with flip, no CRF: the run's settings"
    other = wsss.Segmenter.load(tmp_path / "last.pt", device="cpu", flip=False)
    assert (other.scales, other.config.predict.flip) == ((40, 56), False)
    assert other.uses.endswith("the run's settings except predict.flip")
    labeller = wsss.Labeller.load(tmp_path / "last.pt", device="cpu")
    assert (labeller.config.maps, labeller.config.labels, labeller.scales) == (config.maps, config.labels, (48,))
    assert labeller.uses.endswith("no CRF: the run's settings")
    (tmp_path / "c.yaml").write_text("maps: {method: cam, scales: [64]}\n")
    changed = wsss.Labeller.load(
        tmp_path / "last.pt", device="cpu", config=tmp_path / "c.yaml", settings=["maps.scales=[72]"]
    )
    assert (changed.config.maps.method, changed.scales, changed.config.maps.flip) == ("cam", (72,), True)
    assert changed.uses.endswith("the run's settings except maps.method, maps.scales")


def test_many_predictions_come_in_order_whatever_the_shapes(run: Path, tagged: TaggedSet) -> None:
    """Images of equal shape share a batch, up to a number of pixels; results equal those of single images."""
    segmenter = wsss.Segmenter.load(run, device="cpu", scales=[48], flip=True)
    paths = [record.image for record in tagged.records]
    sizes = [read_image(path).shape[:2] for path in paths]
    assert len(set(sizes)) == 2
    alone = [segmenter.predict(path) for path in paths]
    passes: list[int] = []
    segmenter.network.backbone.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
    for pixels, batches in ((1, len(paths)), (1 << 20, 2)):
        passes.clear()
        segmenter.config = segmenter.config.model_copy(
            update={"run": segmenter.config.run.model_copy(update={"batch_pixels": pixels})}
        )
        together = list(segmenter.predict_many(iter(paths)))
        assert len(passes) == 2 * batches  # each and its mirror image
        for one, other, size in zip(together, alone, sizes, strict=True):
            assert one.label_HW.shape == size
            assert (one.label_HW != other.label_HW).mean() < 0.002
    assert list(segmenter.predict_many([])) == []


def test_an_array_may_be_used_again(run: Path) -> None:
    """Frames of a video that are decoded into one array; here they have the size that the network sees."""
    segmenter = wsss.Segmenter.load(run, device="cpu", scales=[48])
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (48, 48, 3), dtype=np.uint8) for _ in range(3)]

    def reused() -> Iterator[np.ndarray[Any, Any]]:
        buffer = np.empty((48, 48, 3), dtype=np.uint8)
        for frame in frames:
            buffer[:] = frame
            yield buffer

    for frame, prediction in zip(frames, segmenter.predict_many(reused()), strict=True):
        assert np.array_equal(prediction.overlay(), segmenter.predict(frame).overlay())


def test_large_images_are_not_read_far_ahead(run: Path) -> None:
    """Label maps of a window are as large as their images, however small the network sees these."""
    segmenter = wsss.Segmenter.load(run, device="cpu", scales=[48])
    read = 0

    def images() -> Iterator[np.ndarray[Any, Any]]:
        nonlocal read
        for _ in range(4):
            read += 1
            yield np.zeros((2048, 4096, 3), dtype=np.uint8)

    assert next(segmenter.predict_many(images())).label_HW.shape == (2048, 4096)
    assert read == 1


def test_probabilities_overlay_and_file(tmp_path: Path, run: Path, tagged: TaggedSet) -> None:
    image_HW3 = read_image(tagged.records[0].image)
    prediction = wsss.Segmenter.load(run, device="cpu", scales=[48]).predict(image_HW3)
    every = prediction.probabilities()
    assert every.shape == (3, *image_HW3.shape[:2])
    np.testing.assert_allclose(every.sum(axis=0), 1, rtol=1e-5)
    assert np.array_equal(every.argmax(axis=0), prediction.label_HW)
    some = prediction.probabilities([tagged.classes[1], "background"])
    np.testing.assert_allclose(some, every[[2, 0]])
    with pytest.raises(UsageError, match="'lion' is no class"):
        prediction.probabilities(["lion"])
    assert prediction.overlay().shape == image_HW3.shape
    assert not np.array_equal(prediction.overlay(), image_HW3)
    prediction.save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), prediction.label_HW)
    assert "label_HW" in repr(prediction)


def test_pil_images_are_turned_upright(tmp_path: Path, run: Path) -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "side.png"
    Image.fromarray(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(path, exif=exif)
    segmenter = wsss.Segmenter.load(run, device="cpu", scales=[48])
    with Image.open(path) as image:
        assert np.array_equal(segmenter.predict(image).label_HW, segmenter.predict(path).label_HW)
        assert segmenter.predict(image.convert("L")).label_HW.shape == (56, 40)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("where", ["exif", "xmp"])
def test_pil_images_are_read_as_their_files(tmp_path: Path, suffix: str, where: str) -> None:
    """An orientation in XMP alone is Pillow's; files are decoded by OpenCV, which does not know it."""
    path, exif = tmp_path / f"turned{suffix}", Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    options: dict[str, Any] = {"exif": exif} if where == "exif" else {"xmp": xmp}
    if where == "xmp" and suffix == ".png":
        options = {"pnginfo": PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 16, 3), dtype=np.uint8)).save(path, **options)
    with Image.open(path) as image:
        before = {**image.info}
        assert image_array(image).shape == read_image(path).shape
        assert before.items() <= image.info.items()


def test_pil_images_of_16_bits_keep_their_upper_8(tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (4, 5), dtype=np.uint16)).save(path)
    with Image.open(path) as image:
        assert np.array_equal(image_array(image), read_image(path))


def test_one_path_is_not_many(run: Path) -> None:
    with pytest.raises(TypeError, match=r"predict takes one path"):
        next(wsss.Segmenter.load(run, device="cpu").predict_many("photo.jpg"))


@pytest.mark.filterwarnings("error")
def test_arrays_that_cannot_be_written(run: Path) -> None:
    image_HW3 = np.asarray(Image.new("RGB", (30, 20)))
    assert not image_HW3.flags.writeable
    assert wsss.Segmenter.load(run, device="cpu", scales=[48]).predict(image_HW3).label_HW.shape == (20, 30)


@pytest.mark.parametrize(
    ("tags", "saliency", "error"),
    [
        ("bee", None, TypeError),
        (["bee"], np.zeros((4, 6)), TypeError),
        (["bee"], np.zeros((6, 4), np.uint8), ValueError),
    ],
)
def test_what_a_labeller_does_not_take(run: Path, tags: Any, saliency: Any, error: type[Exception]) -> None:
    labeller = wsss.Labeller.load(run, device="cpu", settings=["maps.scales=[48]"])
    with pytest.raises(error, match=r"class names|saliency map"):
        labeller.label(np.zeros((4, 6, 3), np.uint8), tags, saliency=saliency)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((4, 5, 3)), TypeError),
        (np.zeros((4, 5), np.uint8), ValueError),
        (np.zeros((0, 5, 3), np.uint8), ValueError),
        (Image.new("F", (5, 4)), ValueError),
        (3, TypeError),
        ("nowhere.jpg", DataError),
    ],
)
def test_what_is_no_image(run: Path, image: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        wsss.Segmenter.load(run, device="cpu").predict(image)


def test_a_classifier_cannot_segment(tmp_path: Path, small_network: Callable[..., Network], tiny_config: Any) -> None:
    save_checkpoint(tmp_path / "last.pt", small_network(decoder=False), tiny_config())
    with pytest.raises(UsageError, match="cannot segment"):
        wsss.Segmenter.load(tmp_path / "last.pt", device="cpu")


def test_a_dataset(scenes: Path) -> None:
    data = wsss.open_dataset(scenes)
    assert data.splits == ("train", "val")
    assert data.classes == ("bee", "ladybird")
    record = data.records("val")[0]
    truth_HW = data.truth(record)
    assert truth_HW is not None
    assert truth_HW.shape == read_image(record.image).shape[:2]
    with pytest.raises(UsageError, match="which split"):
        data.records()


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path)
    done = subprocess.run(
        [sys.executable, EXAMPLE.name, "24"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "mIoU on unseen scenes" in done.stdout
    assert len(list((tmp_path / "interface-example" / "masks").glob("*.png"))) == 20
