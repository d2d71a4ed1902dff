"""What holds of every edit, on transformers with 0, 1, 2 and 5 prefix tokens, rotary positions and of EVA."""

from __future__ import annotations

import gc
import importlib.util
import math
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from wsss.attention.edit import Call, Edit, Pass
from wsss.attention.interventions import QueryMean, Uniform
from wsss.attention.registry import LEARNED, build_edits
from wsss.attention.temperature import Temperature
from wsss.errors import UsageError
from wsss.maps.generate import class_maps, forward_with_maps
from wsss.maps.recorder import MapSettings
from wsss.models.network import Network
from wsss.sections import EditName, EditSection

spec = importlib.util.spec_from_file_location("networks", Path(__file__).with_name("networks.py"))
assert spec is not None
assert spec.loader is not None
networks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(networks)

BACKBONES, DEPTH, HEADS = networks.BACKBONES, networks.DEPTH, networks.HEADS
network_of, explicit_logits, explicit_maps = networks.network_of, networks.explicit_logits, networks.explicit_maps
relative_error = networks.relative_error

Rule = Callable[[Tensor, int, int], Tensor]

IMAGES = torch.rand(3, 3, 24, 44, generator=torch.Generator().manual_seed(0))
"""3 x 6 patches of 8 pixels; the last column is padded."""
PRESENT = torch.tensor([[True, False, True], [False, False, True], [False, False, False]])

GATES: dict[EditName, tuple[str, ...]] = {
    "temperature": ("log_LA",),
    "channel-gate": ("strength_L",),
    "evolving": ("mix_L", "refine_L"),
    "sparse": ("rate_LA",),
    "object-aware": ("raw_L",),
}
"""The parameters that let an edit begin to act; others have gradients once these have moved."""

every_backbone = pytest.mark.parametrize("name", BACKBONES)
some_backbones = pytest.mark.parametrize(
    "name", ["vit_base_patch16_siglip_gap_224", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224"]
)
"""With 0, 2 and 1 prefix tokens, read by their patches, by all and by both; the last one has rotary positions."""
every_learned = pytest.mark.parametrize("learned", get_args(EditName))


def plain(weights: Tensor, layer: int, prefix: int) -> Tensor:
    return weights


def at_temperature(value: float) -> Rule:
    def rule(weights: Tensor, layer: int, prefix: int) -> Tensor:
        powered = weights ** (1 / value)
        return powered / powered.sum(dim=-1, keepdim=True)

    return rule


def of_mean_queries(weights: Tensor, layer: int, prefix: int) -> Tensor:
    if layer not in (1, 2):
        return weights
    rows = [weights[:, :, n] if n < prefix else weights[:, :, prefix:].mean(dim=2) for n in range(weights.shape[2])]
    return torch.stack(rows, dim=2)


def uniform_patches(weights: Tensor, layer: int, prefix: int) -> Tensor:
    if layer != 2:
        return weights
    even = torch.cat([torch.zeros(prefix), torch.full((18,), 1 / 18)])
    return torch.cat([weights[:, :, :prefix], even.expand_as(weights[:, :, prefix:])], dim=2)


def biased(weights: Tensor, layer: int, prefix: int) -> Tensor:
    raised = weights * by_head().exp()
    return raised / raised.sum(dim=-1, keepdim=True)


def by_head() -> Tensor:
    """A bias (1, A, 1, N) that prefers the last tokens, more so in later heads."""
    return torch.arange(1.0, HEADS + 1)[None, :, None, None] * torch.linspace(0, 1, SIZE["tokens"])


SIZE = {"tokens": 0}


class Watches(Edit):
    """Changes nothing, on the explicit path."""

    def logits(self, logits_BANN: Tensor, call: Call, of: Pass) -> Tensor:
        return logits_BANN


class Bias(Edit):
    def call(self, call: Call, of: Pass) -> Call:
        return replace(call, bias_BANN=by_head())


CASES: dict[str, tuple[Callable[[], Edit], Rule]] = {
    "temperature": (lambda: Temperature(1.7), at_temperature(1.7)),
    "query-mean": (lambda: QueryMean(range(1, 3)), of_mean_queries),
    "uniform": (lambda: Uniform("pool", range(2, 3)), uniform_patches),
    "bias": (Bias, biased),
}


@every_backbone
@every_learned
def test_learned_edits_change_nothing_at_their_start(name: str, learned: EditName) -> None:
    expected = network_of(name).classify(IMAGES)
    edited = network_of(name, edits=build_edits([EditSection(name=learned)], DEPTH, HEADS))
    assert relative_error(edited.classify(IMAGES), expected) < 1e-6
    with edited.edited(QueryMean()):
        assert relative_error(edited.classify(IMAGES), expected) > 1e-4  # attention matters in these networks


@every_backbone
@every_learned
def test_every_gate_has_a_gradient_at_its_start(name: str, learned: EditName) -> None:
    network = network_of(name, edits=build_edits([EditSection(name=learned, layers=(1, 2))], DEPTH, HEADS))
    for edit in network.attention:
        edit.warm_up(0.5)  # object-aware is identity, and its strength without gradient, before the first step alone
    network.classify(IMAGES).square().sum().backward()
    gradients = {key.removeprefix("0."): parameter.grad for key, parameter in network.attention.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    for gate in GATES[learned]:
        assert bool((gradients[gate].abs() > 1e-7).all()), gate  # type: ignore[union-attr]


@some_backbones
@every_learned
@pytest.mark.parametrize("control", [False, True])
def test_maps_of_what_was_learned_equal_autograd_through_its_weights(
    name: str, learned: EditName, control: bool
) -> None:
    if control and (learned == "object-aware" or not LEARNED[learned].has_control):
        pytest.skip("it has no control, or one that is used without its guide")
    section = EditSection(name=learned, layers=(1, 3), control=control)
    network = network_of(name, edits=build_edits([section], DEPTH, HEADS))
    before = network.classify(IMAGES)
    move(network)
    assert relative_error(network.classify(IMAGES), before) > 1e-4  # the random start of timm's versions differs
    for start, spread in ((0, 0), (1, 1), (2, 0)):
        _, maps = class_maps(network, IMAGES, PRESENT, start_layer=start, spread=spread)
        theirs = explicit_maps(network, IMAGES, PRESENT, None, start, spread)
        assert relative_error(maps[PRESENT].flatten(1), theirs) < 1e-5


def move(network: Network) -> None:
    """Give every parameter of the edits a seeded value away from its start."""
    random = torch.Generator().manual_seed(1)
    for edit in network.attention:
        edit.warm_up(1.0)
    for parameter in network.attention.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)


@some_backbones
@every_learned
def test_autocast_of_what_was_learned_stays_within_its_precision(name: str, learned: EditName) -> None:
    network = network_of(name)
    plain = half_error(network)
    network.attention = build_edits([EditSection(name=learned)], DEPTH, HEADS)
    move(network)
    assert half_error(network) < max(2e-2, 2 * plain)


@every_backbone
def test_fused_and_explicit_agree(name: str) -> None:
    network = network_of(name)
    expected = network.classify(IMAGES)
    with network.edited(Watches()):
        assert relative_error(network.classify(IMAGES), expected) < 1e-5


@every_backbone
@pytest.mark.parametrize("case", CASES)
def test_logits_and_maps_equal_the_explicit_loop(name: str, case: str) -> None:
    edit, rule = CASES[case]
    network = network_of(name)
    SIZE["tokens"] = 18 + network.backbone.num_prefix_tokens
    expected = explicit_logits(network, IMAGES, rule)
    assert relative_error(expected, explicit_logits(network, IMAGES, plain)) > 1e-4  # ten times what is asked below
    with network.edited(edit()):
        assert relative_error(network.classify(IMAGES), expected) < 1e-5
    for start, spread in ((0, 0), (1, 1)):
        theirs = explicit_maps(network, IMAGES, PRESENT, rule, start, spread)
        with network.edited(edit()):
            _, maps = class_maps(network, IMAGES, PRESENT, start_layer=start, spread=spread)
        assert relative_error(maps[PRESENT].flatten(1), theirs) < 1e-5


@every_backbone
def test_learned_temperatures_of_heads_equal_the_explicit_loop(name: str) -> None:
    network = network_of(name, edits=build_edits([EditSection(name="temperature", layers=(1, 3))], DEPTH, HEADS))
    log_LA = torch.randn(3, HEADS, generator=torch.Generator().manual_seed(1)) / 2
    network.attention.load_state_dict({"0.log_LA": log_LA})

    def rule(weights: Tensor, layer: int, prefix: int) -> Tensor:
        if layer == 0:
            return weights
        return torch.stack([at_temperature(math.exp(log_LA[layer - 1, a]))(weights[:, a], 0, 0) for a in range(3)], 1)

    _, maps = class_maps(network, IMAGES, PRESENT, start_layer=1, spread=2)
    network.attention = torch.nn.ModuleList()
    assert relative_error(maps[PRESENT].flatten(1), explicit_maps(network, IMAGES, PRESENT, rule, 1, 2)) < 1e-5


@every_backbone
@pytest.mark.parametrize("edit", [Temperature(1.5), QueryMean(), Watches()])
def test_autocast_stays_within_its_precision(name: str, edit: Edit) -> None:
    """Within 0.02, or the error of the network without the edit where its weights make that larger."""
    network = network_of(name)
    without = half_error(network)
    with network.edited(edit):
        assert half_error(network) < max(2e-2, 1.2 * without)


def half_error(network: Network) -> float:
    full = network.classify(IMAGES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network.classify(IMAGES)
    assert half.dtype == torch.bfloat16
    return float(relative_error(half.float(), full))


def test_two_edits_act_in_their_order() -> None:
    network = network_of("deit_tiny_patch16_224")
    with network.edited(Temperature(2.0)):
        expected = network.classify(IMAGES)
    with network.edited(Temperature(4.0)), network.edited(Temperature(0.5)):
        assert relative_error(network.classify(IMAGES), expected) < 1e-6


class TwiceTheMlp(Edit):
    def channels(self, output_BNC: Tensor, layer: int, of: Pass) -> Tensor:
        return 2 * output_BNC


def test_channels_of_the_mlp_are_edited() -> None:
    network, doubled = network_of("deit_tiny_patch16_224"), network_of("deit_tiny_patch16_224")
    for parameter in doubled.backbone.vit.blocks[2].mlp.fc2.parameters():
        parameter.data *= 2
    with network.edited(TwiceTheMlp(range(2, 3))):
        assert relative_error(network.classify(IMAGES), doubled.classify(IMAGES)) < 1e-6
        _, ours = class_maps(network, IMAGES, PRESENT, start_layer=1)
    assert relative_error(ours, class_maps(doubled, IMAGES, PRESENT, start_layer=1)[1]) < 1e-5


class Remembers(Edit):
    """Counts the blocks of its pass in the pass's memory, and multiplies queries by the mean of the guide."""

    seen: list[int]

    def call(self, call: Call, of: Pass) -> Call:
        of.memory["count"] = of.memory.get("count", torch.zeros(())) + 1
        self.seen.append(int(of.memory["count"]))
        assert of.guide_BKhw is not None
        weight_B = of.guide_BKhw.mean(dim=(1, 2, 3))
        return replace(call, query_BAND=call.query_BAND * weight_B[:, None, None, None])


def test_the_guide_follows_its_images_through_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsss.maps.passes.PASS_OVERHEAD", {"cpu": 0.1})
    network, edit = network_of("deit_tiny_patch16_224"), Remembers()
    edit.seen = []
    guide = torch.tensor([0.5, 2.0, 1.0])[:, None, None, None].expand(3, 1, 3, 6)
    with network.edited(edit):
        _, logits, _ = forward_with_maps(network, IMAGES, PRESENT, MapSettings(), guide=guide)
        alone = [network.readout(network.features(IMAGES[i : i + 1], guide=guide[i : i + 1])) for i in range(3)]
    assert relative_error(logits, torch.cat(alone)) < 1e-5
    assert edit.seen == [*range(1, DEPTH + 1)] * (len(edit.seen) // DEPTH)  # the memory ends with each pass
    assert len(edit.seen) > 4 * DEPTH  # several groups


def test_passing_edits_are_gone_after_their_context_and_after_an_error() -> None:
    network = network_of("deit_tiny_patch16_224")
    expected = network.classify(IMAGES)

    class Fails(Edit):
        def channels(self, output_BNC: Tensor, layer: int, of: Pass) -> Tensor:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), network.edited(Fails(), Temperature(3.0)):
        network.classify(IMAGES)
    assert network.edits == []
    assert not any(block.mlp._forward_hooks for block in network.backbone.vit.blocks)
    assert torch.equal(network.classify(IMAGES), expected)


def test_an_edit_of_one_network_leaves_others_alone() -> None:
    one, other = network_of("deit_tiny_patch16_224"), network_of("deit_tiny_patch16_224")
    with one.edited(Temperature(3.0)):
        assert other.edits == []


def test_two_threads_of_edits_do_not_meet() -> None:
    network = network_of("deit_tiny_patch16_224")
    edits: list[Edit] = [TwiceTheMlp(), Temperature(3.0)]
    expected = []
    for edit in edits:
        with network.edited(edit):
            expected.append(network.classify(IMAGES).detach())
    barrier, wrong = threading.Barrier(2), []

    def run(edit: Edit, expected: Tensor) -> None:
        barrier.wait()
        for _ in range(20):
            with torch.no_grad(), network.edited(edit):
                wrong.append(relative_error(network.classify(IMAGES), expected) > 1e-6)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(edits, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [False] * 40


def test_checkpoints_bring_back_the_same_bits(tmp_path: Path, tiny_config: Callable[..., object]) -> None:
    from wsss.config import Config
    from wsss.models.checkpoint import build_from, load_network, save_checkpoint

    config = tiny_config(model__attention=[{"name": "temperature", "layers": [1, 2]}])
    assert isinstance(config, Config)
    network = build_from(config, ("bee", "ladybird"), decoder=False).eval()
    for parameter in network.attention.parameters():
        torch.nn.init.normal_(parameter)
    save_checkpoint(tmp_path / "last.pt", network, config)
    loaded, _, _ = load_network(tmp_path / "last.pt")
    assert torch.equal(loaded.classify(IMAGES), network.classify(IMAGES))
    assert [*loaded.state_dict()] == [*network.state_dict()]
    assert "attention.0.log_LA" in loaded.state_dict()


def test_networks_without_edits_have_no_keys_of_them() -> None:
    assert not [key for key in network_of("deit_tiny_patch16_224").state_dict() if key.startswith("attention")]


def test_edited_batches_leave_nothing_behind() -> None:
    network: Network = network_of("deit_tiny_patch16_224")
    live = []
    with torch.no_grad():
        for number in range(500):
            with network.edited(Temperature(1.5), QueryMean(range(1, 2)), TwiceTheMlp()):
                network.classify(IMAGES[:1, :, :16, :16])
            if number in (99, 499):
                gc.collect()
                live.append(sum(issubclass(type(found), Tensor) for found in gc.get_objects()))
    assert live[0] == live[1]


def test_every_name_of_the_config_is_registered() -> None:
    assert set(LEARNED) == set(get_args(EditName))


def test_blocks_that_the_backbone_lacks_are_refused() -> None:
    with pytest.raises(UsageError, match="temperature in blocks 2 to 4, but the blocks are 0 to 3"):
        build_edits([EditSection(name="temperature", layers=(2, 4))], DEPTH, HEADS)
    with pytest.raises(UsageError, match="temperature has no control"):
        build_edits([EditSection(name="temperature", control=True)], DEPTH, HEADS)


def test_attention_that_is_computed_twice_is_no_silent_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of("deit_tiny_patch16_224")
    attn = network.backbone.vit.blocks[1].attn
    once = attn.forward
    monkeypatch.setattr(attn, "forward", lambda *given, **options: once(*given, **options) - once(*given, **options))
    with pytest.raises(RuntimeError, match="5 calls of attention in 4 blocks"), network.edited(Temperature(2.0)):
        network.classify(IMAGES)


def test_edits_learn_in_a_group_of_their_own(tiny_config: Callable[..., object]) -> None:
    from wsss.config import Config
    from wsss.models.checkpoint import build_from
    from wsss.training.optimiser import make_optimizer

    config = tiny_config(model__attention=[{"name": "temperature"}])
    assert isinstance(config, Config)
    network = build_from(config, ("bee", "ladybird"), decoder=False)
    groups = make_optimizer(config.classify, network).param_groups
    mine = [group for group in groups if any(one is network.attention[0].log_LA for one in group["params"])]
    assert [(group["base_lr"], group["weight_decay"]) for group in mine] == [(20 * config.classify.lr, 0.0)]
    assert sum(len(group["params"]) for group in groups) == len([*network.parameters()])


@pytest.mark.parametrize("mode", ["all", "top"])
def test_temperatures_learn_and_a_resumed_run_has_them(
    tiny_config: Callable[..., object], tmp_path: Path, mode: str
) -> None:
    from wsss.config import Config
    from wsss.models.checkpoint import load_network
    from wsss.training.start import train_classifier, train_segmenter

    config = tiny_config(
        model__attention=[{"name": "temperature", "layers": [2, 3]}], classify__finetune=mode, segment__ema=0.9
    )
    assert isinstance(config, Config)
    config = config.model_copy(update={"classify": config.classify.model_copy(update={"epochs": 4})})
    network = train_classifier(config, tmp_path / "cls")
    learned = network.attention[0].log_LA
    assert isinstance(learned, Tensor)
    assert bool((learned.abs() > 1e-4).all())
    assert torch.equal(load_network(tmp_path / "cls")[0].attention[0].log_LA, learned)  # type: ignore[arg-type]
    segmenter = train_segmenter(config, tmp_path / "seg", init=tmp_path / "cls")
    assert isinstance(segmenter.attention[0].log_LA, Tensor)
    assert not torch.equal(segmenter.attention[0].log_LA, torch.zeros(2, HEADS))


def test_a_head_alone_takes_no_edit(tiny_config: Callable[..., object], tmp_path: Path) -> None:
    from wsss.config import Config
    from wsss.training.start import train_classifier

    config = tiny_config(model__attention=[{"name": "temperature"}], classify__finetune="head")
    assert isinstance(config, Config)
    with pytest.raises(UsageError, match="temperature would learn nothing"):
        train_classifier(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_edited_network_is_not_exported_without_its_edits(small_network: Callable[..., Network]) -> None:
    from wsss.inference.export import ExportedModel

    network = small_network()
    ExportedModel(network)
    with network.edited(Temperature(2.0)), pytest.raises(UsageError, match=r"its attention is edited \(Temperature\)"):
        ExportedModel(network)
