import pytest
import torch
from torch import Tensor, nn

from wsss.models.decoder import DPTDecoder, LinearReading, ProjectReadout

EMBED_DIM = 24


def make_decoder(*, has_class_token: bool = True, outputs: int = 3, fresh: bool = False) -> DPTDecoder:
    """A decoder with random weights in the layers that compute scores; with ``fresh`` these stay at zero."""
    torch.manual_seed(0)
    decoder = DPTDecoder(EMBED_DIM, outputs, channels=24, has_class_token=has_class_token)
    if not fresh:
        for layer in (decoder.classify, decoder.coarse.patch, decoder.coarse.token):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.1)
    return decoder


def make_taps(
    batch: int, height: int, width: int, *, has_class_token: bool = True
) -> list[tuple[Tensor, Tensor | None]]:
    generator = torch.Generator().manual_seed(batch + 10 * height + 100 * width)
    taps: list[tuple[Tensor, Tensor | None]] = []
    for _ in range(4):
        patches = torch.randn(batch, EMBED_DIM, height, width, generator=generator)
        token = torch.randn(batch, EMBED_DIM, generator=generator)
        taps.append((patches, token if has_class_token else None))
    return taps


@pytest.mark.parametrize("has_class_token", [True, False])
@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (2, 2), (7, 5), (6, 9)])
def test_scores_have_eight_times_the_grid(grid: tuple[int, int], has_class_token: bool) -> None:
    decoder = make_decoder(has_class_token=has_class_token)
    for batch in (1, 2):
        scores = decoder(make_taps(batch, *grid, has_class_token=has_class_token))
        assert scores.shape == (batch, 3, 8 * grid[0], 8 * grid[1])
        assert scores.isfinite().all()


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_few_channels_work(channels: int) -> None:
    decoder = DPTDecoder(EMBED_DIM, 3, channels=channels, has_class_token=True).train()
    scores = decoder(make_taps(2, 3, 2))
    assert scores.shape == (2, 3, 24, 16)
    scores.square().sum().backward()


def test_images_of_a_batch_are_independent() -> None:
    decoder = make_decoder().train()
    for module in decoder.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    taps = make_taps(3, 3, 4)
    together = decoder(taps)
    alone = decoder([(patches[1:2], token[1:2]) for patches, token in taps if token is not None])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("has_class_token", [True, False])
def test_gradient_reaches_every_parameter_and_every_tap(has_class_token: bool) -> None:
    decoder = make_decoder(has_class_token=has_class_token).eval()
    taps = make_taps(2, 4, 3, has_class_token=has_class_token)
    inputs = [tensor.requires_grad_() for tap in taps for tensor in tap if tensor is not None]
    weight = torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(1))
    (decoder(taps) * weight).sum().backward()
    silent = [
        name for name, parameter in decoder.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert silent == []
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in inputs)


def test_the_readout_is_the_linear_layer_of_the_joined_tokens() -> None:
    torch.manual_seed(0)
    readout = ProjectReadout(5)
    patches_BChw, token_BC = torch.randn(2, 5, 3, 4), torch.randn(2, 5)
    out = readout(patches_BChw, token_BC)
    joined = torch.cat([patches_BChw, token_BC[:, :, None, None].expand(2, 5, 3, 4)], dim=1)
    naive = nn.functional.gelu(readout.project(joined.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    torch.testing.assert_close(out, naive)


def test_without_a_class_token_there_is_no_readout() -> None:
    assert not list(make_decoder(has_class_token=False).readouts.parameters())


def test_the_start_is_undecided() -> None:
    assert not make_decoder(fresh=True)(make_taps(2, 4, 4)).any()


def test_detail_adds_to_the_linear_reading_of_the_deepest_tap() -> None:
    decoder = make_decoder().eval()
    nn.init.zeros_(decoder.classify.weight)
    taps = make_taps(2, 4, 3)
    coarse = decoder.coarse(*taps[-1])
    torch.testing.assert_close(decoder(taps), nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear"))


@pytest.mark.parametrize("has_class_token", [True, False])
def test_the_linear_reading_is_two_linear_maps_of_normalised_tokens(has_class_token: bool) -> None:
    torch.manual_seed(0)
    reading = LinearReading(5, 3, has_class_token=has_class_token)
    patches_BChw, token_BC = torch.randn(2, 5, 3, 4), torch.randn(2, 5) if has_class_token else None
    for parameter in reading.parameters():
        nn.init.normal_(parameter)
    out = reading(patches_BChw, token_BC)
    assert out.shape == (2, 3, 3, 4)
    expected = reading.patch(reading.norm(patches_BChw[1, :, 2, 1]))
    if reading.token is not None and token_BC is not None:
        expected = expected + reading.token(reading.norm(token_BC[1]))
    torch.testing.assert_close(out[1, :, 2, 1], expected)


@pytest.mark.parametrize("count", [3, 5])
def test_it_takes_exactly_four_taps(count: int) -> None:
    with pytest.raises(ValueError, match="zip"):
        make_decoder()((make_taps(1, 2, 2) * 2)[:count])


def test_the_names_in_a_checkpoint_stay() -> None:
    names = set(make_decoder().state_dict())
    unit = {"conv1", "norm1", "conv2", "norm2"}
    assert {name.split(".")[0] for name in names} == {
        "readouts",
        "reassemble",
        "fusions",
        "head",
        "classify",
        "coarse",
    }
    assert {name.split(".")[3] for name in names if name.startswith("fusions.2.skip.")} <= unit
    assert {"readouts.0.project.weight", "reassemble.0.project.weight", "reassemble.3.resample.bias"} <= names
    assert {"reassemble.2.mix.weight", "reassemble.0.mix.0.weight", "fusions.0.out.bias"} <= names
    assert {"fusions.3.refine.conv2.weight", "fusions.1.attention.squeeze.weight"} <= names
    assert {"coarse.norm.weight", "coarse.patch.weight", "coarse.token.weight"} <= names
    assert {"head.0.0.weight", "head.0.1.weight", "head.1.weight", "classify.weight"} <= names
    assert not any(name.startswith("fusions.3.skip") for name in names)
