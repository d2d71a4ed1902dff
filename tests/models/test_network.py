"""The network: geometry, normalisation, readouts, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from wsss.config import Config
from wsss.errors import DataError, UsageError
from wsss.models.checkpoint import (
    build_from,
    file_hash,
    find_checkpoint,
    load_network,
    read_checkpoint,
    save_checkpoint,
)
from wsss.models.network import build_network

GAP = "vit_base_patch16_siglip_gap_224"
BACKBONES = [GAP, "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch14_reg4_dinov2"]
Build = Callable[..., Any]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("size", [(8, 8), (32, 32), (24, 40), (19, 30), (33, 9)])
def test_any_size_of_at_least_one_patch(small_network: Build, backbone: str, size: tuple[int, int]) -> None:
    network = small_network(backbone)
    with torch.no_grad():
        logits_BK, scores_BCHW = network(torch.rand(2, 3, *size))
    assert logits_BK.shape == (2, 2)
    assert scores_BCHW.shape == (2, 3, *size)
    assert scores_BCHW.isfinite().all()


def test_padding_is_the_mean_colour_at_the_bottom_and_right(small_network: Build) -> None:
    network = small_network()
    images_B3HW = torch.rand(1, 3, 19, 30)
    padded_B3HW = network.mean.expand(1, 3, 24, 32).clone()
    padded_B3HW[:, :, :19, :30] = images_B3HW
    with torch.no_grad():
        torch.testing.assert_close(network.classify(images_B3HW), network.classify(padded_B3HW))
        scores_BCHW, padded_BCHW = network(images_B3HW)[1], network(padded_B3HW)[1]
    torch.testing.assert_close(scores_BCHW, padded_BCHW[:, :, :19, :30])


def test_it_normalises_as_the_weights_want(small_network: Build) -> None:
    network = small_network("vit_tiny_patch16_224")  # mean and deviation 0.5
    images_B3HW = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = network.readout(network.backbone(images_B3HW * 2 - 1))
        torch.testing.assert_close(network.classify(images_B3HW), expected)
    assert network.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert small_network().mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_to_image_by_hand(small_network: Build) -> None:
    """One row of two patches of 8 pixels: centres at 3.5 and 11.5, constant beyond, the padding cut."""
    network = small_network()
    image = network.to_image(torch.tensor([[[[0.0, 1.0]]]]), (1, 2), (5, 13))
    assert image.shape == (1, 1, 5, 13)
    expected = [min(max((x - 3.5) / 8, 0.0), 1.0) for x in range(13)]
    for row in image[0, 0]:
        assert row.tolist() == pytest.approx(expected)


def test_to_image_keeps_rows_and_columns_apart(small_network: Build) -> None:
    network = small_network()
    image = network.to_image(torch.tensor([[[[0.0], [1.0], [2.0]]]]), (3, 1), (20, 6))
    assert image.shape == (1, 1, 20, 6)
    assert (image[0, 0, :, 0] == image[0, 0, :, 5]).all()
    assert image[0, 0, 19, 0].item() == pytest.approx(1 + 15 / 16)
    assert image[0, 0, 11, 0].item() == pytest.approx(15 / 16)
    finer = network.to_image(torch.zeros(1, 1, 24, 8), (3, 1), (20, 6))  # a map finer than the grid
    assert finer.shape == (1, 1, 20, 6)


def test_images_do_not_influence_each_other(small_network: Build) -> None:
    network = small_network()
    images_B3HW = torch.rand(3, 3, 24, 32)
    with torch.no_grad():
        logits_BK, scores_BCHW = network(images_B3HW)
        logits_1K, scores_1CHW = network(images_B3HW[1:2])
    torch.testing.assert_close(logits_BK[1:2], logits_1K)
    torch.testing.assert_close(scores_BCHW[1:2], scores_1CHW)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_shallow_networks_have_four_taps(small_network: Build, depth: int) -> None:
    network = small_network(depth=depth)
    assert len(network.taps) == 4
    assert network.taps[-1] == depth - 1
    assert list(network.taps) == sorted(network.taps)
    assert network(torch.rand(1, 3, 16, 24))[1].shape == (1, 3, 16, 24)


def test_taps_of_twelve_blocks(small_network: Build) -> None:
    assert small_network(depth=12).taps == (2, 5, 8, 11)


def test_one_class(small_network: Build) -> None:
    network = small_network(classes=("dog",))
    logits_BK, scores_BCHW = network(torch.rand(1, 3, 16, 16))
    assert logits_BK.shape == (1, 1)
    assert scores_BCHW.shape == (1, 2, 16, 16)


def test_no_class_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one class"):
        build_network("vit_tiny_patch16_224", [])


def test_readout_auto(small_network: Build) -> None:
    assert type(small_network(decoder=False).readout).__name__ == "ProjectReadout"
    pooled = small_network(GAP, decoder=False)
    assert type(pooled.readout).__name__ == "PoolReadout"
    assert not pooled.backbone.has_class_token


@pytest.mark.parametrize("readout", ["project", "token", "both"])
def test_a_readout_that_needs_a_class_token(small_network: Build, readout: str) -> None:
    with pytest.raises(UsageError, match=f"readout '{readout}' needs a class token, which {GAP} lacks"):
        small_network(GAP, readout=readout)


def test_a_classifier_cannot_segment(small_network: Build) -> None:
    network = small_network(decoder=False)
    with pytest.raises(UsageError, match="cannot segment"):
        network(torch.rand(1, 3, 16, 16))


def test_the_cam_of_a_network_averages_to_its_logit(small_network: Build) -> None:
    network = small_network(decoder=False)
    with torch.no_grad():
        features = network.features(torch.rand(2, 3, 24, 40))
        logits_BK = network.readout(features)
        mean_BK = network.readout.cam(features).mean(dim=(2, 3))
    torch.testing.assert_close(mean_BK, logits_BK - network.readout.head.bias)


def test_scores_are_the_decoders_upsampled(small_network: Build) -> None:
    network = small_network()
    images_B3HW = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        features = network.features(images_B3HW, taps=True)
        coarse = network.decoder(features.taps)
        expected = F.interpolate(coarse, size=(16, 24), mode="bilinear", align_corners=False)
        torch.testing.assert_close(network(images_B3HW)[1], expected)


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("backbone", [GAP, "deit_tiny_distilled_patch16_224"])
def test_checkpoint_round_trip(tmp_path: Path, tiny_config: Any, backbone: str, decoder: bool) -> None:
    config: Config = tiny_config(model__backbone=backbone)
    torch.manual_seed(3)
    model = config.model
    network = build_network(backbone, ["a b", "c"], decoder=decoder, decoder_channels=16, vit=model.vit).eval()
    path = tmp_path / "last.pt"
    save_checkpoint(path, network, config, training={"step": 5})
    loaded, read, where = load_network(tmp_path)
    assert where == path
    assert read == config
    assert loaded.classes == ("a b", "c")
    assert not loaded.training
    assert (loaded.decoder is None) is not decoder
    images_B3HW = torch.rand(1, 3, 20, 28)
    with torch.no_grad():
        assert torch.equal(loaded.classify(images_B3HW), network.classify(images_B3HW))
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
    assert read_checkpoint(path)["training"] == {"step": 5}
    assert load_network(path)[0].classes == ("a b", "c")
    before = file_hash(path)
    save_checkpoint(path, network, config, training={"step": 6})
    assert len(before) == 64
    assert file_hash(path) != before


def test_files_that_are_no_checkpoints(tmp_path: Path, tiny_config: Any, small_network: Build) -> None:
    with pytest.raises(DataError, match="no such run"):
        find_checkpoint(tmp_path / "none")
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(DataError, match=r"is no run: it has no last\.pt"):
        find_checkpoint(run)
    (run / "run.json").write_text("{}")
    with pytest.raises(DataError, match="stopped before the first one was written") as caught:
        find_checkpoint(run)
    assert caught.value.fix == f"rm -r {run}  # and train it again"
    save_checkpoint(run / "last.pt", small_network(decoder=False), tiny_config(), training={})
    with pytest.raises(DataError, match=r"has no best checkpoint: it has last\.pt") as caught:
        find_checkpoint(run, "best")
    assert caught.value.fix == "--checkpoint last"
    (run / "cut.pt").write_bytes((run / "last.pt").read_bytes()[:2000])
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        read_checkpoint(run / "cut.pt")
    with pytest.raises(UsageError, match=r"last\.pt is the last checkpoint of its run, not the best one") as wrong:
        find_checkpoint(run / "last.pt", "best")
    assert wrong.value.fix == f"take {run}"
    assert find_checkpoint(run / "last.pt") == find_checkpoint(run) == run / "last.pt"
    torch.save({"format": 1, "network": {}}, run / "other.pt")
    with pytest.raises(DataError, match="is no wsss checkpoint"):
        read_checkpoint(run / "other.pt")


def test_checkpoints_that_contradict_their_config(tmp_path: Path, tiny_config: Any, small_network: Build) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, small_network(decoder=False, depth=3), tiny_config(), training={})
    with pytest.raises(DataError, match=r"do not fit its config .*blocks\.3"):
        load_network(tmp_path)
    content = read_checkpoint(path)
    content["config"]["run"]["gpu_count"] = 3
    torch.save(content, path)
    with pytest.raises(DataError, match=r"another version wrote its config \(run\.gpu_count\)"):
        load_network(tmp_path)


@pytest.mark.parametrize("size", [(32, 40), (29, 37)])
def test_scores_on_the_decoders_grid(small_network: Build, size: tuple[int, int]) -> None:
    """``decode`` upsamples these scores: 8 rows and columns for each patch of the padded image."""
    network = small_network()
    with torch.no_grad():
        features = network.features(torch.rand(2, 3, *size), taps=True)
        scores_BChw = network.decode_grid(features)
        assert scores_BChw.shape == (2, 3, 8 * features.grid[0], 8 * features.grid[1])
        assert torch.equal(network.to_image(scores_BChw, features.grid, size), network.decode(features, size))


def test_a_network_is_built_in_one_way(tiny_config: Any) -> None:
    """With random weights from the seed, or without values until a checkpoint is loaded."""
    config = tiny_config(run__seed=3)
    one, other = (build_from(config, ["a"], decoder=True).state_dict() for _ in range(2))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    before = torch.random.get_rng_state()
    with torch.device("meta"):
        sketch = build_from(config, ["a"], decoder=True, fresh=False).state_dict()
    assert {key: value.shape for key, value in sketch.items()} == {key: value.shape for key, value in one.items()}
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_checkpoint_keeps_its_normalisation(tmp_path: Path, tiny_config: Any, small_network: Build) -> None:
    """Where this version of timm names other values for the backbone than the one that it was trained with."""
    network, images_B3HW = small_network().eval(), torch.rand(1, 3, 16, 24)
    network.mean += 0.25
    network.std *= 2
    save_checkpoint(tmp_path / "last.pt", network, tiny_config())
    loaded = load_network(tmp_path)[0]
    assert loaded.mean.flatten().tolist() == network.mean.flatten().tolist() != small_network().mean.flatten().tolist()
    with torch.no_grad():
        assert torch.equal(loaded.classify(images_B3HW), network.classify(images_B3HW))
    content = read_checkpoint(tmp_path / "last.pt")
    del content["normalisation"]  # as versions before this one wrote
    torch.save(content, tmp_path / "last.pt")
    assert torch.equal(load_network(tmp_path)[0].mean, small_network().mean)
    for wrong in ({"mean": [0.5] * 3, "std": [0.0] * 3}, {"mean": [0.5] * 3}, {"mean": 1.0, "std": [1.0] * 3}, []):
        torch.save(content | {"normalisation": wrong}, tmp_path / "last.pt")
        with pytest.raises(DataError, match="is no wsss checkpoint"):
            load_network(tmp_path)
