"""Prediction on images without tags: accepted inputs, written files, averages by hand."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as T

from wsss.config import Config
from wsss.data.dataset import open_unlabelled
from wsss.data.images import read_image
from wsss.data.masks import PALETTE, read_mask
from wsss.errors import UsageError
from wsss.inference.predicting import predict_masks
from wsss.inference.segmenter import Segmenter
from wsss.labels.bands import probabilities_at
from wsss.labels.crf import crf_probabilities
from wsss.models.averaged import log_label_probabilities
from wsss.models.network import Network
from wsss.outputs.manifest import read_manifest
from wsss.outputs.pictures import KEY_MIN_WIDTH, key
from wsss.reporting import Silent

CPU = torch.device("cpu")
ORIENTATION = 0x0112
needs_pydensecrf = pytest.mark.skipif(
    importlib.util.find_spec("pydensecrf") is None,
    reason="pydensecrf is not installed: pip install 'wsss[crf]'",
)


@pytest.fixture
def network(small_network: Callable[..., Network]) -> Network:
    """A network whose decoder scores are large and vary over the pixels, so that it predicts all classes."""
    network = small_network()
    torch.manual_seed(2)
    assert network.decoder is not None
    torch.nn.init.normal_(network.decoder.classify.weight, std=3.0)
    network.supervision = ("tags", "saliency maps")
    return network


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Colour, grey, grey of 16 bits, transparent and lying on its side, two of them in folders; no tags."""
    root = tmp_path / "photos"
    (root / "deep" / "er").mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (40, 56, 4), dtype=np.uint8)
    Image.fromarray(noise[..., :3]).save(root / "colour.png")
    Image.fromarray(noise[:, :50, 0]).save(root / "deep" / "grey.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(root / "grey16.png")
    Image.fromarray(noise).save(root / "deep" / "er" / "clear.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(noise[:, :, :3]).save(root / "side.jpg", exif=exif)
    (root / "readme.txt").write_text("not a photo")
    return root


def predict(network: Network, source: Path, out: Path, config: Config, **options: Any) -> dict[str, int]:
    records = open_unlabelled(source)
    return predict_masks(network, records, out, config, Silent(), device=CPU, checkpoint_sha256="f00d", **options)


def test_a_plain_folder(tmp_path: Path, network: Network, photos: Path, tiny_config: Any) -> None:
    counts = predict(network, photos, tmp_path / "out", tiny_config())
    assert {key: counts[key] for key in ("images", "made", "skipped")} == {"images": 5, "made": 5, "skipped": 0}
    assert counts["foreground"] > 0 == counts["ignored"]
    sizes = {
        "colour": (40, 56),
        "deep/grey": (40, 50),
        "grey16": (40, 56),
        "deep/er/clear": (40, 56),
        "side": (56, 40),
    }
    for name, size in sizes.items():
        path = tmp_path / "out" / "labels" / f"{name}.png"
        label_HW = read_mask(path)
        assert label_HW.shape == size, name
        assert set(np.unique(label_HW)) <= {0, 1, 2}
        with Image.open(path) as image:
            assert image.mode == "P"
            assert image.getpalette()[:9] == PALETTE[:3].ravel().tolist()
        assert (tmp_path / "out" / "overlays" / f"{name}.jpg").is_file()
    seen = {int(value) for name in sizes for value in np.unique(read_mask(tmp_path / "out/labels" / f"{name}.png"))}
    assert len(seen) > 1
    manifest = read_manifest(tmp_path / "out")
    assert manifest["kind"] == "segmentation"
    assert manifest["split"] is None
    assert manifest["supervision"] == ["tags", "saliency maps"]
    assert manifest["counts"] == {key: counts[key] for key in ("images", "background", "foreground", "ignored")}


def test_other_images_of_the_same_names_are_segmented(
    tmp_path: Path, network: Network, photos: Path, tiny_config: Any
) -> None:
    predict(network, photos, tmp_path / "out", tiny_config())
    shutil.copytree(photos, tmp_path / "others")
    image_HW3 = read_image(photos / "side.jpg")
    Image.fromarray(255 - image_HW3).save(tmp_path / "others" / "side.jpg")
    counts = predict(network, tmp_path / "others", tmp_path / "out", tiny_config())
    assert (counts["made"], counts["skipped"]) == (1, 4)


def test_equal_names_of_another_folder_are_refused(
    tmp_path: Path, network: Network, photos: Path, tiny_config: Any
) -> None:
    """Two folders with the same names: masks of the first are not replaced silently."""
    predict(network, photos, tmp_path / "out", tiny_config())
    before = (tmp_path / "out" / "labels" / "side.png").read_bytes()
    (tmp_path / "others").mkdir()
    Image.fromarray(255 - read_image(photos / "side.jpg")).save(tmp_path / "others" / "side.jpg")
    with pytest.raises(UsageError, match=r"other images of the same names: 'side' was .*photos/side.jpg") as caught:
        predict(network, tmp_path / "others", tmp_path / "out", tiny_config())
    assert "--overwrite" in caught.value.fix
    assert (tmp_path / "out" / "labels" / "side.png").read_bytes() == before
    assert predict(network, tmp_path / "others", tmp_path / "out", tiny_config(), overwrite=True)["made"] == 1


def test_an_image_of_as_many_bytes_is_segmented_again(
    tmp_path: Path, network: Network, photos: Path, tiny_config: Any
) -> None:
    """An image is identified by its bytes, not by length and modification time."""
    (tmp_path / "bmp").mkdir()
    path = tmp_path / "bmp" / "a.bmp"
    image_HW3 = read_image(photos / "colour.png")
    Image.fromarray(image_HW3).save(path)
    assert predict(network, tmp_path / "bmp", tmp_path / "out", tiny_config())["made"] == 1
    path.touch()
    assert predict(network, tmp_path / "bmp", tmp_path / "out", tiny_config())["made"] == 0
    length = path.stat().st_size
    Image.fromarray(255 - image_HW3).save(path)
    assert path.stat().st_size == length
    assert predict(network, tmp_path / "bmp", tmp_path / "out", tiny_config())["made"] == 1


def test_an_overlay_has_a_key_of_the_classes(tmp_path: Path, network: Network, photos: Path, tiny_config: Any) -> None:
    predict(network, photos / "side.jpg", tmp_path / "out", tiny_config())
    label_HW = read_mask(tmp_path / "out" / "labels" / "side.png")
    key_HW3 = key(label_HW, network.classes, KEY_MIN_WIDTH)
    drawn_HW3 = read_image(tmp_path / "out" / "overlays" / "side.jpg")
    assert drawn_HW3.shape == (56 + len(key_HW3), KEY_MIN_WIDTH, 3)
    assert np.abs(drawn_HW3[56:].astype(int) - key_HW3).mean() < 6  # a JPEG


def test_the_palette_changes_pictures_alone(tmp_path: Path, network: Network, photos: Path, tiny_config: Any) -> None:
    predict(network, photos / "side.jpg", tmp_path / "voc", tiny_config())
    predict(network, photos / "side.jpg", tmp_path / "other", tiny_config(), palette="colorblind")
    read = [(tmp_path / out / "labels" / "side.png").read_bytes() for out in ("voc", "other")]
    drawn = [read_image(tmp_path / out / "overlays" / "side.jpg") for out in ("voc", "other")]
    assert read[0] == read[1]
    assert (drawn[0] != drawn[1]).any()
    label_HW = read_mask(tmp_path / "other" / "labels" / "side.png")
    key_HW3 = key(label_HW, network.classes, KEY_MIN_WIDTH, "colorblind").astype(int)
    assert np.abs(drawn[1][56:].astype(int) - key_HW3).mean() < 10


def test_one_image_and_no_overlays(tmp_path: Path, network: Network, photos: Path, tiny_config: Any) -> None:
    counts = predict(network, photos / "side.jpg", tmp_path / "out", tiny_config(), overlays=False)
    assert counts["made"] == 1
    assert [path.name for path in (tmp_path / "out" / "labels").iterdir()] == ["side.png"]
    assert not (tmp_path / "out" / "overlays").exists()


def test_a_mask_is_the_likeliest_class(tmp_path: Path, network: Network, photos: Path, tiny_config: Any) -> None:
    """One scale, one image: the mask is the argmax of the network's own output."""
    predict(network, photos, tmp_path / "out", tiny_config(predict__scales=[48]))
    image_HW3 = read_image(photos / "side.jpg")
    assert image_HW3.shape == (56, 40, 3)
    scaled = T.resize_image(torch.from_numpy(image_HW3).permute(2, 0, 1), [56, 40], antialias=True)[None].float() / 255
    with torch.no_grad():
        scores_BCHW = network(scaled)[1]
    label_HW = read_mask(tmp_path / "out" / "labels" / "side.png")
    assert (label_HW != scores_BCHW[0].argmax(dim=0).numpy()).mean() < 0.002


def test_the_average_over_scales_and_flips_by_hand(network: Network) -> None:
    torch.manual_seed(0)
    scaled = [torch.rand(2, 3, 32, 24), torch.rand(2, 3, 48, 40)]
    given_BChw = log_label_probabilities(network, scaled, flip=True)
    grid = (48, 40)  # 8 points a patch of 8 pixels, of the finer scale
    parts = []
    with torch.no_grad():
        for images in scaled:
            for mirrored in (False, True):
                seen = images.flip(3) if mirrored else images
                scores = network.decode_grid(network.features(seen, taps=True))
                scores = scores.flip(3) if mirrored else scores
                parts.append(F.interpolate(scores, size=grid, mode="bilinear").softmax(dim=1))
    torch.testing.assert_close(given_BChw.exp(), torch.stack(parts).mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(given_BChw.exp().sum(dim=1), torch.ones(2, *grid))


def test_of_one_pass_the_scores_are_upsampled(network: Network) -> None:
    """One scale without flip: the softmax of the interpolated scores, as in a network's forward."""
    torch.manual_seed(0)
    images = torch.rand(1, 3, 48, 40)
    (grid_Chw,) = log_label_probabilities(network, [images])
    with torch.no_grad():
        scores = network.decode_grid(network.features(images, taps=True))
    expected = F.interpolate(scores, size=(75, 66), mode="bilinear").softmax(dim=1)[0]
    torch.testing.assert_close(probabilities_at(grid_Chw, (75, 66)), expected, rtol=1e-4, atol=1e-5)


def test_a_mirrored_image_gets_the_mirrored_average(network: Network) -> None:
    torch.manual_seed(0)
    images = [torch.rand(1, 3, 32, 40)]
    there = log_label_probabilities(network, images, flip=True)
    back = log_label_probabilities(network, [images[0].flip(3)], flip=True)
    torch.testing.assert_close(there, back.flip(3), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(log_label_probabilities(network, images), there, atol=1e-3)


def test_what_is_there_is_skipped(tmp_path: Path, network: Network, photos: Path, tiny_config: Any) -> None:
    out = tmp_path / "out"
    predict(network, photos, out, tiny_config())
    (out / "labels" / "side.png").unlink()
    counts = predict(network, photos, out, tiny_config())
    assert (counts["images"], counts["made"], counts["skipped"]) == (5, 1, 4)
    with pytest.raises(UsageError, match=r"other settings: flip \(was false, now true\)"):
        predict(network, photos, out, tiny_config(predict__flip=True))
    config = tiny_config(predict__flip=True)
    assert predict(network, photos, out, config, overwrite=True)["made"] == 5


def test_the_batch_size_changes_nothing(tmp_path: Path, network: Network, photos: Path, tiny_config: Any) -> None:
    for size in (1, 8):
        predict(network, photos, tmp_path / str(size), tiny_config(run__batch_pixels=size * 48**2, predict__flip=True))
    for path in (tmp_path / "1" / "labels").rglob("*.png"):
        other = tmp_path / "8" / "labels" / path.relative_to(tmp_path / "1" / "labels")
        assert (read_mask(path) != read_mask(other)).mean() < 0.002


def test_a_classifier_is_refused(
    tmp_path: Path, small_network: Callable[..., Network], photos: Path, tiny_config: Any
) -> None:
    with pytest.raises(UsageError, match="cannot segment") as caught:
        predict(small_network(decoder=False), photos, tmp_path / "out", tiny_config())
    assert caught.value.fix.startswith("wsss train-seg")
    assert not (tmp_path / "out").exists()


def segmenter(network: Network, tiny_config: Any) -> Segmenter:
    return Segmenter(network, tiny_config(predict__crf=True), CPU)


@needs_pydensecrf
def test_the_crf_gets_only_predicted_classes(network: Network, tiny_config: Any) -> None:
    """Class 2 is the likeliest at no pixel, so it cannot appear; a single pixel of class 1 is removed."""
    probabilities_CHW = torch.full((3, 20, 20), 0.1)
    probabilities_CHW[0] = 0.8
    probabilities_CHW[:, 10, 10] = torch.tensor([0.3, 0.6, 0.1])
    image_HW3 = np.full((20, 20, 3), 90, dtype=np.uint8)
    plain_HW = probabilities_CHW.argmax(dim=0).byte().numpy()
    assert plain_HW.sum() == plain_HW[10, 10] == 1
    seen: list[np.ndarray[Any, Any]] = []

    def watched(image_HW3: Any, scores_SHW: Any, section: Any) -> Any:
        seen.append(scores_SHW)
        return crf_probabilities(image_HW3, scores_SHW, section)

    refined_HW = segmenter(network, tiny_config).refined(plain_HW, probabilities_CHW.log(), image_HW3, watched)
    assert np.allclose(seen[0], probabilities_CHW[:2])
    assert not refined_HW.any()


@needs_pydensecrf
@pytest.mark.parametrize("seen", [(0, 2), (1, 3), (0, 1, 3)])
def test_the_crf_keeps_class_indices(network: Network, tiny_config: Any, seen: tuple[int, ...]) -> None:
    """The CRF changes nothing where each class fills a stripe of its own colour; the background is always included."""
    label_HW = np.repeat(np.repeat(np.array(seen, dtype=np.uint8), 8)[None], 20, axis=0)
    probabilities_CHW = torch.full((4, *label_HW.shape), 0.02)
    probabilities_CHW.scatter_(0, torch.from_numpy(label_HW).long()[None], 0.94)
    image_HW3 = np.repeat((label_HW * 80)[..., None], 3, axis=2)
    refined_HW = segmenter(network, tiny_config).refined(label_HW, probabilities_CHW.log(), image_HW3)
    assert np.array_equal(refined_HW, label_HW)


@needs_pydensecrf
def test_the_number_of_processes_changes_no_byte(
    tmp_path: Path, network: Network, photos: Path, tiny_config: Any
) -> None:
    predict(network, photos, tmp_path / "plain", tiny_config())
    for workers in (0, 1, 2):
        predict(network, photos, tmp_path / str(workers), tiny_config(predict__crf=True, run__workers=workers))
    written = [path.relative_to(tmp_path / "0") for path in (tmp_path / "0").rglob("*.*g")]
    assert len(written) == 10
    for name in written:
        assert len({(tmp_path / str(workers) / name).read_bytes() for workers in (0, 1, 2)}) == 1, name
    assert any((tmp_path / "0" / name).read_bytes() != (tmp_path / "plain" / name).read_bytes() for name in written)


class Stopping(Silent):
    """A reporter that raises KeyboardInterrupt after ``images`` images."""

    def __init__(self, images: int) -> None:
        self.images = images

    def advance(self, count: int = 1, note: str = "") -> None:
        self.images -= count
        if self.images == 0:
            raise KeyboardInterrupt


def test_ctrl_c_leaves_whole_files(tmp_path: Path, network: Network, photos: Path, tiny_config: Any) -> None:
    records = open_unlabelled(photos)
    with pytest.raises(KeyboardInterrupt):
        predict_masks(
            network, records, tmp_path / "out", tiny_config(), Stopping(2), device=CPU, checkpoint_sha256="f00d"
        )
    assert not list((tmp_path / "out").rglob("*.tmp"))
    labels = list((tmp_path / "out" / "labels").rglob("*.png"))
    assert all((read_mask(path) <= 2).all() for path in labels)
    assert predict(network, photos, tmp_path / "out", tiny_config())["skipped"] == len(labels) >= 2
