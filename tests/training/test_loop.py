"""Parts of the training loop: schedule, order of the images, samples, moving average, optimiser groups."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from wsss.config import AugmentSection, ClassifySection, Config, resolve
from wsss.data.augment import StepBatches, TrainingImages, mix
from wsss.data.dataset import open_data
from wsss.data.images import read_image
from wsss.data.masks import write_mask
from wsss.data.records import TaggedSet
from wsss.errors import DataError, MachineError, UsageError, WsssError
from wsss.inference.settings import map_scales
from wsss.models.checkpoint import build_from, read_checkpoint
from wsss.outputs.folder import Source, held_folder
from wsss.outputs.run import check_free
from wsss.reporting import Silent
from wsss.training import classify, loop, pace
from wsss.training.average import decay_after
from wsss.training.classify import ClassifyStep
from wsss.training.given_labels import find_labels
from wsss.training.loop import Loop, RunContext, steps_of
from wsss.training.optimiser import make_optimizer, schedule
from wsss.training.pace import Pace
from wsss.training.ranks import ALONE
from wsss.training.saving import State
from wsss.training.start import resume_classifier, train_classifier, train_segmenter
from wsss.training.validation import Validation

CPU = torch.device("cpu")


def test_adamw_schedule_by_hand() -> None:
    section = ClassifySection(warmup=0.2)
    factors = [schedule(section, step, 10) for step in range(11)]
    assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert factors[4] == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert factors[6] == pytest.approx(0.5)
    assert factors[10] == pytest.approx(0.0)
    assert factors[2:] == sorted(factors[2:], reverse=True)


def test_poly_schedule_by_hand() -> None:
    section = ClassifySection(optimizer="sgd-poly", warmup=0.5)  # has no warm-up
    factors = [schedule(section, step, 4) for step in range(5)]
    assert factors == pytest.approx([1.0, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0.0])


@pytest.mark.parametrize(("warmup", "total"), [(0.0, 1), (1.0, 1), (1.0, 3), (0.05, 7)])
def test_the_rate_is_positive_wherever_a_step_is_taken(warmup: float, total: int) -> None:
    factors = [schedule(ClassifySection(warmup=warmup), step, total) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 30), size=st.integers(1, 40), epochs=st.integers(1, 3), seed=st.integers(0, 5))
def test_an_epoch_takes_no_image_twice(length: int, size: int, epochs: int, seed: int) -> None:
    batches = StepBatches(length, size, 0, 0, seed)
    batches.stop = epochs * batches.steps_per_epoch
    steps = list(batches)
    assert len(steps) == len(batches) == batches.stop
    for epoch in range(epochs):
        mine = [key for step in steps for key in step if key[0] == epoch]
        indices = [index for _, index in mine]
        assert len(indices) == len(set(indices)) == length // min(size, length) * min(size, length)
        assert set(indices) <= set(range(length))


def test_order_follows_seed_and_epoch_and_can_start_at_any_step() -> None:
    def order(seed: int, start: int = 0) -> list[Any]:
        return list(StepBatches(12, 4, start, 6, seed))

    assert order(1) == order(1)
    assert order(1) != order(2)
    first, second = ([index for step in order(1)[at : at + 3] for _, index in step] for at in (0, 3))
    assert first != second
    assert order(1, start=4) == order(1)[4:]  # within the second epoch


def test_mix_differs_for_different_numbers() -> None:
    seeds = {mix(a, b, c) for a in range(3) for b in range(3) for c in range(3)}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.fixture
def tagged(scenes: Path) -> TaggedSet:
    return open_data(scenes, split="train")


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_samples_do_not_depend_on_workers_or_on_what_was_drawn_before(tagged: TaggedSet) -> None:
    images = TrainingImages(tagged, AugmentSection(size=24), seed=3)
    batches = [[(0, 5), (0, 2)], [(1, 5), (0, 7)]]
    here = list(DataLoader(images, batch_sampler=batches, num_workers=0))
    torch.manual_seed(99)
    there = list(DataLoader(images, batch_sampler=batches[::-1], num_workers=2))[::-1]
    assert all(same(first, second) for first, second in zip(here, there, strict=True))
    assert not torch.equal(here[0]["image"][0], here[1]["image"][0])  # another epoch, another crop
    other = TrainingImages(tagged, AugmentSection(size=24), seed=4)[(0, 5)]
    assert not torch.equal(here[0]["image"][0], other["image"])


def test_a_sample_leaves_the_random_state_alone(tagged: TaggedSet) -> None:
    images = TrainingImages(tagged, AugmentSection(size=24), seed=3)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    images[(0, 0)]
    assert torch.equal(before, torch.random.get_rng_state())


def test_label_and_saliency_move_with_the_image(tagged: TaggedSet, tmp_path: Path) -> None:
    """Label and saliency are thresholds of the image, so after augmentation they must equal those of the sample."""
    for record in tagged.records[:6]:
        grey_HW = read_image(record.image)[..., 1]
        write_mask(tmp_path / f"{record.name}.png", (grey_HW > 120).astype(np.uint8))
    augment = AugmentSection(size=40, jitter=0.0)
    images = TrainingImages(tagged, augment, seed=0, labels=tmp_path, saliency=tmp_path)
    for index in range(6):
        sample = images[(2, index)]
        assert sample["image"].shape == (3, 40, 40)
        assert sample["label"].shape == sample["saliency"].shape == (40, 40)
        assert sample["label"].dtype == torch.uint8
        assert torch.equal(sample["label"], sample["saliency"])
        assert set(sample["label"].unique().tolist()) <= {0, 1}
        agree = (sample["label"] == (sample["image"][1] > 120)).float().mean()
        assert agree > 0.9
        assert sample["present"].tolist() == tagged.present(tagged.records[index]).tolist()


def test_a_layer_of_another_size_is_refused(tagged: TaggedSet, tmp_path: Path) -> None:
    write_mask(tmp_path / f"{tagged.records[0].name}.png", np.zeros((5, 7), dtype=np.uint8))
    images = TrainingImages(tagged, AugmentSection(), seed=0, labels=tmp_path)
    with pytest.raises(DataError, match="is 7x5, its image"):
        images[(0, 0)]


def loop_of(config: Config, run: Path, tagged: TaggedSet) -> Loop:
    run.mkdir()
    network = build_from(config, tagged.classes, decoder=False)
    images = TrainingImages(tagged, config.augment, seed=config.run.seed)
    step = ClassifyStep(network, config, steps_of(images, config.classify))
    return Loop(RunContext(run, config, CPU, Silent()), step, images, None)


class Watched(Loop):
    """A loop that stores the weights after each step."""

    def _step(self, batch: dict[str, Tensor]) -> None:
        super()._step(batch)
        self.seen: list[Tensor] = [*getattr(self, "seen", []), self.step.network.readout.head.weight.detach().clone()]


def test_the_moving_average_by_hand(tmp_path: Path, tiny_config: Any, tagged: TaggedSet) -> None:
    config = tiny_config(classify__ema=0.75, classify__epochs=1)
    plain = loop_of(config, tmp_path / "run", tagged)
    plain.__class__ = Watched
    plain.train()
    expected, *rest = plain.seen
    second, third = rest
    expected = 2 / 11 * expected + 9 / 11 * second
    expected = 3 / 12 * expected + 9 / 12 * third
    torch.testing.assert_close(plain.shown.readout.head.weight, expected)
    assert not torch.equal(plain.shown.readout.head.weight, plain.step.network.readout.head.weight)


def test_the_decay_of_the_average_grows_with_the_steps() -> None:
    assert [decay_after(steps, 0.99) for steps in (1, 8, 90, 890, 10**6)] == [2 / 11, 0.5, 0.91, 0.99, 0.99]
    assert decay_after(90, 0.75) == 0.75


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_autocast_on_the_cpu(tmp_path: Path, tiny_config: Any, tagged: TaggedSet, amp: str) -> None:
    config = tiny_config(run__amp=amp, classify__epochs=1)
    runner = loop_of(config, tmp_path / "run", tagged)
    before = runner.step.network.readout.head.weight.detach().clone()
    runner.train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3
    assert math.isfinite(rows[-1]["loss"])
    weight = runner.step.network.readout.head.weight
    assert weight.dtype == torch.float32
    assert weight.isfinite().all()
    assert not torch.equal(weight, before)


def test_clipping_bounds_the_gradient(tmp_path: Path, tiny_config: Any, tagged: TaggedSet) -> None:
    config = tiny_config(classify__clip_norm=1e-3, classify__epochs=1)
    runner = loop_of(config, tmp_path / "run", tagged)
    runner.train()
    norms = [parameter.grad.norm() for parameter in runner.step.network.parameters() if parameter.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_training_learns(tmp_path: Path, tiny_config: Any, tagged: TaggedSet) -> None:
    config = tiny_config(classify__epochs=4, augment__jitter=0.0, augment__flip=0.0, augment__min_area=1.0)
    runner = loop_of(config, tmp_path / "run", tagged)
    runner.train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 12]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[0]["images_per_second"] > 0


class Clock:
    """A device that queues one second of work a step and does it when the host synchronises; other work of the host
    takes longer."""

    def __init__(self) -> None:
        self.time = 0.0
        self.queue = 0.0

    def wait(self) -> None:
        self.time += self.queue
        self.queue = 0.0

    def now(self) -> float:
        return self.time

    def after(self, seconds: float, call: Callable[..., Any]) -> Callable[..., Any]:
        """A call that synchronises the device and takes so many seconds."""

        def slow(*args: Any, **options: Any) -> Any:
            self.wait()
            self.time += seconds
            return call(*args, **options)

        return slow

    def step(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def queued(*args: Any) -> Any:
            self.queue += 1.0
            return call(*args)

        return queued


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=made.now))
    monkeypatch.setattr(Pace, "_wait", made.wait)
    monkeypatch.setattr(Loop, "_step", made.step(Loop._step))
    monkeypatch.setattr(loop, "save_last", made.after(1000.0, loop.save_last))
    monkeypatch.setattr(classify, "tag_scores", made.after(100.0, classify.tag_scores))
    return made


def speeds(run: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["images_per_second"] for row in rows if "split" not in row}


def test_the_speed_is_that_of_the_steps_alone(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Eight images a step of one second, also with a validation, a checkpoint or a resume between the steps."""
    monkeypatch.setattr(loop, "LOG_EVERY", 2)
    run = tmp_path / "run"
    forward, steps = ClassifyStep.forward, []

    def cut(self: Any, batch: Any, at: int) -> dict[str, Tensor]:
        steps.append(at)
        if steps == [0, 1, 2, 3, 4]:
            raise RuntimeError("power cut")
        return forward(self, batch, at)

    monkeypatch.setattr(ClassifyStep, "forward", cut)
    every_third = iter([100.0 if number % 3 == 2 else 0.0 for number in range(50)])
    monkeypatch.setattr(Loop, "_seconds_unsaved", lambda self: next(every_third))
    config = tiny_config(classify__epochs=4, classify__checkpoint_minutes=1.0)
    with pytest.raises(RuntimeError, match="power cut"):
        train_classifier(config, run, Silent())
    assert speeds(run) == {2: 8.0, 4: 8.0}
    clock.queue = 0.0
    resume_classifier(run, Silent())
    assert steps == [0, 1, 2, 3, 4, *range(3, 12)]  # resumed at step 3, inside a window of two steps
    assert speeds(run) == {2: 8.0, 4: 8.0, 6: 8.0, 8: 8.0, 10: 8.0, 12: 8.0}
    assert clock.time > 5000


def test_figures_are_those_of_the_split_they_come_from(tmp_path: Path, tiny_config: Any) -> None:
    train_classifier(tiny_config(classify__epochs=1, data__val_split="train"), tmp_path / "run", Silent())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows if "tag_map" in row] == ["train"]


def test_a_nan_loss_stops_the_run(
    tmp_path: Path, tiny_config: Any, tagged: TaggedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    runner = loop_of(tiny_config(classify__epochs=1), tmp_path / "run", tagged)
    plain = runner.step.forward

    def broken(*args: Any) -> dict[str, Tensor]:
        return {name: value * math.nan for name, value in plain(*args).items()}

    monkeypatch.setattr(runner.step, "forward", broken)
    with pytest.raises(WsssError, match="the loss is nan at step 1 for train_") as caught:
        runner.train()
    assert "--lr" in caught.value.fix


EXEMPT = {"backbone.vit.pos_embed", "backbone.vit.cls_token", "backbone.vit.dist_token"}


@pytest.mark.parametrize("by_dimension", [False, True])
def test_what_decays_and_that_the_decoder_learns_faster(tiny_config: Any, by_dimension: bool) -> None:
    """As in timm, and, to resume older checkpoints, as in earlier versions."""
    config = tiny_config(segment__lr=1e-2, segment__weight_decay=0.1)
    network = build_from(config, ["a"], decoder=True)
    optimizer = make_optimizer(config.segment, network, decoder_lr_factor=5.0, by_dimension=by_dimension)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    names = {name for name, _ in network.named_parameters()}
    assert names >= EXEMPT
    for name, parameter in network.named_parameters():
        group = group_of[id(parameter)]
        assert group["base_lr"] == pytest.approx(5e-2 if name.startswith("decoder.") else 1e-2), name
        decays = parameter.ndim > 1 and (by_dimension or name not in EXEMPT)
        assert group["weight_decay"] == (0.1 if decays else 0.0), name


def test_the_optimisers(tiny_config: Any) -> None:
    config = tiny_config(classify__optimizer="sgd-poly", classify__momentum=0.8, classify__weight_decay=0.01)
    optimizer = make_optimizer(config.classify, build_from(config, ["a"], decoder=False))
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.8}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01, 0.0}


def test_checkpoints_are_written_by_the_clock(
    tmp_path: Path, tiny_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One before the first step and two at the end, before and after the last validation; none at other epochs."""
    saved: list[int] = []
    plain = loop.save_last

    def note(*given: Any) -> None:
        saved.append(given[-1].step)
        plain(*given)

    monkeypatch.setattr(loop, "save_last", note)
    train_classifier(tiny_config(classify__epochs=3), tmp_path / "run", Silent())
    assert saved == [0, 9, 9]
    saved.clear()
    train_classifier(tiny_config(classify__epochs=1, classify__checkpoint_minutes=1e-9), tmp_path / "often", Silent())
    assert saved == [0, 1, 2, 3, 3]


def test_a_folder_in_use_is_refused(tmp_path: Path, tiny_config: Any) -> None:
    check_free(tmp_path / "new")
    check_free(tmp_path)  # empty
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is in use") as caught:
        train_classifier(tiny_config(), tmp_path, Silent())
    assert caught.value.fix == "choose another -o"  # no `rm -r`, because the folder may contain photos
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(UsageError, match="is in use") as caught:
        check_free(tmp_path)
    assert caught.value.fix.startswith(f"--resume {tmp_path}")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failed_start_leaves_no_run_behind(tmp_path: Path, tiny_config: Any) -> None:
    run = tmp_path / "run"
    with pytest.raises(UsageError, match="no such model"):
        train_classifier(tiny_config(model__backbone="vit_tiny"), run, Silent())
    with pytest.raises(DataError, match="no such data folder"):
        train_classifier(tiny_config(data__root=tmp_path / "none"), run, Silent())
    with pytest.raises(UsageError, match=r"maps\.start_layer 4"):
        train_segmenter(tiny_config(maps__start_layer=4), run, Silent())
    with pytest.raises(UsageError, match=r"maps\.start_layer 4"):
        train_segmenter(tiny_config(maps__start_layer=4, segment__rounds=2), run, Silent())
    with pytest.raises(UsageError, match="no split 'tran'"):
        train_classifier(tiny_config(data__train_split="tran"), run, Silent())
    if not torch.cuda.is_available():
        with pytest.raises(MachineError, match="no CUDA device"):
            train_classifier(tiny_config(run__device="cuda"), run, Silent())
    assert not run.exists()


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:", "cpu:0", ""])
def test_names_that_are_no_devices(tmp_path: Path, tiny_config: Any, name: str) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda or cuda:N"):
        train_classifier(tiny_config(run__device=name), tmp_path / "run", Silent())


def test_labels_are_found_in_the_folder_or_its_labels(tagged: TaggedSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="24 of 24 images of train have no label map") as caught:
        find_labels(tmp_path, tagged)
    assert caught.value.fix.endswith(f"-o {tmp_path}")
    for record in tagged.records:
        label_HW = np.zeros(read_image(record.image).shape[:2], dtype=np.uint8)
        write_mask(tmp_path / "labels" / f"{record.name}.png", label_HW)
    assert find_labels(tmp_path, tagged) == find_labels(tmp_path / "labels", tagged) == tmp_path / "labels"
    write_mask(tmp_path / "labels" / f"{tagged.records[5].name}.png", np.zeros((2, 3), dtype=np.uint8))
    with pytest.raises(DataError, match=rf"1 of 24 .* a label map of another size \({tagged.records[5].name}\)"):
        find_labels(tmp_path, tagged)
    (tmp_path / "labels" / f"{tagged.records[3].name}.png").unlink()
    with pytest.raises(DataError, match=rf"1 of 24 images of train have no label map \({tagged.records[3].name}\)"):
        find_labels(tmp_path, tagged)


def test_labels_of_other_classes_are_refused(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    """Also the same classes in another order, which would silently train wrong classes."""
    shutil.copytree(scenes / "masks", tmp_path / "made" / "labels")
    manifest = tmp_path / "made" / "manifest.json"
    for classes, order in ((["ladybird", "bee"], ", in another order"), (["bee", "wasp"], ""), (["bee"], "")):
        manifest.write_text(json.dumps({"classes": classes}))
        for folder in (tmp_path / "made", tmp_path / "made" / "labels"):
            with pytest.raises(DataError) as caught:
                train_segmenter(tiny_config(segment__epochs=1), tmp_path / "run", Silent(), labels=folder)
            assert caught.value.problem == (
                f"{tmp_path / 'made'}: its label maps have the classes {', '.join(classes)}; "
                f"{scenes} has bee, ladybird{order}"
            )
    assert not (tmp_path / "run").exists()
    manifest.write_text(json.dumps({"classes": ["bee", "ladybird"]}))
    train_segmenter(tiny_config(segment__epochs=1), tmp_path / "run", Silent(), labels=tmp_path / "made")


def test_images_that_changed_since_they_were_labelled_are_named(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    """Sizes are equal: nothing else tells that a label map belongs to another image. Where the images lie is free."""

    class Saying(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    said: list[str] = []
    root, made = tmp_path / "moved", tmp_path / "made"
    shutil.copytree(scenes, root)
    tagged = open_data(root, split="train")
    with held_folder(made, {"classes": ["bee", "ladybird"]}, Config(), Silent(), overwrite=False) as folder:
        for record in tagged.records:
            folder.write(Source.of(record), np.zeros(read_image(record.image).shape[:2], np.uint8))
    config = tiny_config(data__root=root, segment__epochs=1)
    train_segmenter(config, tmp_path / "one", Saying(), labels=made)
    assert not any("changed after" in text for text in said)
    first = tagged.records[0].image
    Image.fromarray(255 - read_image(first)).save(first)
    train_segmenter(config, tmp_path / "two", Saying(), labels=made / "labels")
    remark = f"1 image of 24 changed after the label maps in {made} were made ({tagged.records[0].name})"
    assert any(text.startswith(remark) for text in said)


@pytest.mark.parametrize(("epochs", "remarked"), [(66, True), (67, False)])
def test_few_steps_are_remarked_on(tmp_path: Path, tiny_config: Any, epochs: int, remarked: bool) -> None:
    """Three steps an epoch."""
    said: list[str] = []

    class Saying(Silent):
        def say(self, message: str) -> None:
            said.append(message)

        def begin(self, what: str, total: int, done: int = 0) -> None:
            if what == "training":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_classifier(tiny_config(classify__epochs=epochs), tmp_path / "run", Saying())
    remark = "198 steps are few to learn from; --epochs 67 makes them 201"
    assert (remark in said) is remarked


@pytest.mark.parametrize(("epochs", "remarked"), [(666, False), (667, True)])
def test_many_epochs_are_remarked_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_config: Any, epochs: int, remarked: bool
) -> None:
    """Three steps an epoch; more than ten times the 200 steps that are few."""
    said: list[str] = []
    monkeypatch.setattr(Silent, "say", lambda self, message: said.append(message))

    def begin(self: Silent, what: str, total: int, done: int = 0) -> None:
        if what == "training":
            raise KeyboardInterrupt

    monkeypatch.setattr(Silent, "begin", begin)
    with pytest.raises(KeyboardInterrupt):
        train_classifier(tiny_config(classify__epochs=epochs), tmp_path / "run", Silent())
    assert any(text.startswith(f"{epochs} epochs are many for 24 images") for text in said) is remarked


class Saying(Silent):
    """A reporter that keeps the remarks."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_validation_without_a_figure_says_that_there_is_no_best(tmp_path: Path, tiny_config: Any) -> None:
    """An mIoU of masks of ignored pixels alone is undefined, and no later figure can be better than it."""
    reporter = Saying()
    training = Loop.__new__(Loop)
    training.run, training.config, training.reporter, training.task = tmp_path, tiny_config(), reporter, {}
    training.section, training.total = training.config.classify, 100
    training.ranks = ALONE
    training.state = State(step=3)
    training.batches, training.pace = StepBatches(24, 8, 0, 0, 0), Pace(CPU)
    training.bad_steps = SimpleNamespace(stop_if_any=lambda: None)  # type: ignore[assignment]
    training.step = SimpleNamespace(shown=torch.nn.Identity())  # type: ignore[assignment]
    training.validation = Validation("val", "mean_iou", lambda network, between: {"mean_iou": math.nan})
    training._validate_if_due(SimpleNamespace(leave_if_asked=lambda *words: None))  # type: ignore[arg-type]
    said = "mean_iou of split val is undefined: nothing in it can be scored, so there is no best.pt"
    assert reporter.said[-1] == said
    assert not (tmp_path / "best.pt").exists()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["mean_iou"] is None


def test_images_without_a_mask_are_no_part_of_the_validation_that_is_told(
    tmp_path: Path, tiny_config: Any, scenes: Path
) -> None:
    root, reporter = tmp_path / "data", Saying()
    shutil.copytree(scenes, root)
    for record in open_data(root, split="val").records[:5]:
        (root / "masks" / f"{record.name}.png").unlink()
    config = tiny_config(data__root=root, segment__epochs=1, classify__epochs=1)
    train_segmenter(config, tmp_path / "seg", reporter)
    assert sum("validates on val (3 images with a mask, 5 without)" in text for text in reporter.said) == 1
    choices = json.loads((tmp_path / "seg" / "run.json").read_text())["choices"]
    assert (choices["val_images"], choices["val_without_mask"]) == (3, 5)
    train_classifier(config, tmp_path / "cls", reporter)
    assert sum("validates on val (8 images)" in text for text in reporter.said) == 1


def test_a_network_setting_beside_an_initial_run_is_said_to_have_no_effect(tmp_path: Path, tiny_config: Any) -> None:
    reporter = Saying()
    train_classifier(tiny_config(classify__epochs=1), tmp_path / "cls", Silent())
    config = tiny_config(segment__epochs=1, model__readout="pool", model__decoder_channels=8)
    train_segmenter(config, tmp_path / "seg", reporter, init=tmp_path / "cls")
    said = "model.readout: not used, the network is that of the run (deit_tiny_distilled_patch16_224)"
    assert reporter.said.count(said) == 1


def test_the_config_beside_a_segmenter_names_no_scales_that_were_not_given(tmp_path: Path, tiny_config: Any) -> None:
    """Given to a training of other crops by ``-c``, it must not bring those that suited the first."""
    given = tiny_config(segment__epochs=1)
    plain = given.model_copy(update={"maps": given.maps.model_copy(update={"scales": None})})
    train_segmenter(plain, tmp_path / "run", Silent())
    written = resolve(tmp_path / "run" / "config.yaml", (), {"augment.size": 64})
    assert (written.maps.scales, written.predict.scales) == (None, given.predict.scales)
    assert map_scales(written) == (91,)


def test_what_given_labels_make_useless_is_said(tmp_path: Path, tiny_config: Any, scenes: Path) -> None:
    """A config file can name saliency maps beside ``--labels``, where the options refuse each other."""
    reporter, saliency = Saying(), scenes / "saliency"
    config = tiny_config(segment__epochs=1, data__saliency=saliency)
    train_segmenter(config, tmp_path / "run", reporter, labels=scenes / "masks")
    assert reporter.said.count(f"the saliency maps of {saliency} are not used: the label maps are given") == 1


def test_a_segmenter_normalises_as_the_run_that_it_starts_from(tmp_path: Path, tiny_config: Any) -> None:
    train_classifier(tiny_config(classify__epochs=1), tmp_path / "cls", Silent())
    content = read_checkpoint(tmp_path / "cls" / "last.pt")
    other = {"mean": [0.25, 0.5, 0.125], "std": [0.5, 0.25, 1.0]}
    torch.save(content | {"normalisation": other}, tmp_path / "cls" / "last.pt")
    network = train_segmenter(tiny_config(segment__epochs=1), tmp_path / "seg", Silent(), init=tmp_path / "cls")
    assert (network.mean.flatten().tolist(), network.std.flatten().tolist()) == (other["mean"], other["std"])
    assert read_checkpoint(tmp_path / "seg" / "last.pt")["normalisation"] == other
