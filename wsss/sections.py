"""The keys of a config: one frozen model, in sections.

The docstring under a key is its description. Its first paragraph is also the help text of the key's command-line
option (`wsss.cli.options`). "Pixels" are pixels of the image that the network reads, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from wsss.reading import Reading
from wsss.section import Section

Method = Literal["getam", "attention-gradient", "gradcam", "rollout", "chefer", "legrad", "attention", "cam", "objects"]
Coupling = Literal["released", "paper"]
Rows = Literal["auto", "token", "pool", "both"]
ReadoutName = Literal["auto", "project", "token", "pool", "both"]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]
Sizes = Annotated[tuple[Positive, ...], Field(min_length=1)]

NO_FILE = ("pretrained", "none")
"""Values of ``model.weights`` that are not the path of a file."""


class DataSection(Reading):
    """Where images and tags come from, and how they are read."""

    root: Path | None = None
    """Data folder; see data/README.md."""
    train_split: str | None = None
    """Split to train on or to label.

    None: the first of train_aug, trainaug, train and training that exists, in any case."""
    val_split: str | None = None
    """Split to validate on; a segmentation is validated where the split has masks.

    None: the first of val, valid, validation and dev that exists, in any case, else no validation."""
    saliency: Path | None = None
    """Folder of 8-bit saliency maps: extra supervision.

    None: labels are made without saliency."""
    bad_limit: Share = 0.01
    """Largest share of unreadable images, in [0, 1]. Up to it they are skipped; above it the data are refused.

    A single unreadable image is always skipped."""

    @field_validator("root", "saliency", "tags")
    @classmethod
    def _home_is_known(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser()


EditName = Literal["temperature", "channel-gate", "evolving", "sparse", "object-aware"]


class EditSection(Section):
    """An edit of the backbone's attention that is learned with it."""

    name: EditName
    """temperature: of the softmax, one for each head. channel-gate: of the channels of the MLP. evolving: logits mixed
    with those of the block before, and a convolution of them. sparse: few keys for each query. object-aware:
    less from patch to patch the more a guide tells them apart."""
    layers: tuple[Count, Count] | None = None
    """First and last block that are edited, from 0. None: all."""
    control: bool = False
    """Learn the control of the edit instead: the same without what it is said to be good for."""
    guide: Literal["colour", "labels"] = "colour"
    """Of object-aware: the mean colours of the patches, or the label maps of --guide, which only the training has."""


class ModelSection(Section):
    """The network."""

    backbone: str = "deit_small_patch16_224"
    """A timm vision transformer, or for `wsss train-cls` a ConvNeXt, EfficientNet or ResNet (wsss backbones)."""
    weights: str = "pretrained"
    """Initial weights of the backbone: FILE.safetensors, FILE.pth, pretrained (timm downloads them) or none."""
    readout: ReadoutName = "auto"
    """What the classifier reads: the class token joined with each patch (project), the class token, the mean of the
    patches (pool), or both. "auto" takes "project" where the backbone has a class token, else "pool"."""
    drop_path: Share = 0.0
    """Probability, in [0, 1], that a training step skips a residual branch of the backbone (stochastic depth)."""
    decoder_channels: Positive = 96
    """Channels of the segmentation decoder."""
    vit: dict[str, int] = Field(default_factory=dict)
    """Arguments passed to timm's constructor of the backbone, for small networks trained from scratch."""
    attention: tuple[EditSection, ...] = ()
    """Edits of the backbone's attention that are learned with it, each with `name` and perhaps `layers`,
    `control` and `guide`."""

    @field_validator("weights")
    @classmethod
    def _home_is_known(cls, weights: str) -> str:
        return str(Path(weights).expanduser()) if weights.startswith("~") else weights


class RunSection(Section):
    """The machine and the seed."""

    seed: Count = 0
    """Seed of all random numbers."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto takes CUDA where torch finds it."""
    amp: Literal["auto", "none", "bf16", "fp16"] = "auto"
    """Number type of torch's autocast: auto takes bf16 on a GPU that has it and else none, which is float32."""
    workers: Count | None = None
    """Loader processes, and as many for the dense CRF; 0 uses none.

    None: one fewer than the cores, at most 8."""
    deterministic: bool = False
    """Use only algorithms of torch that repeat: the same bits again for the same config, data, seed and number of
    workers, on the same model of device with the same versions. Slower on a GPU."""
    verify_steps: Count = 0
    """Compute one training step in so many twice and end the run where the two differ: this device computes wrongly.

    0 verifies none. Bit for bit on a CPU and with run.deterministic. Changes no result. Such a step has one more
    forward and backward, two more where several processes train."""
    batch_pixels: Positive | None = None
    """Largest number of pixels in one batch at inference (make-pseudo, predict, validation), counted at the size that
    the network reads; a larger image is a batch alone. None: 2**20 on a CPU, 2**23 on other devices."""


class AugmentSection(Section):
    """Random resized crop, flip and colour jitter of the training images."""

    size: Positive = 224
    """Side of the square training crops, pixels."""
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Smallest area of a crop, as a share of the image, in (0, 1]."""
    flip: Share = 0.5
    """Probability of a horizontal flip, in [0, 1]."""
    jitter: Share = 0.2
    """Strength of the colour jitter (brightness, contrast, saturation), in [0, 1]; 0 changes no colour."""


class Optimisation(Section):
    """Schedule and optimiser of a training."""

    least_epochs: ClassVar[int] = 1

    epochs: Positive | None = None
    """Passes over the training split. None: 4 in train-cls and 2 in train-seg, or as many as make 200 steps."""
    batch_size: Positive = 16
    """Images in a training step, of all processes together."""
    accumulate: Positive = 1
    """Parts of a batch that a process computes one after the other, which takes less memory.

    The gradient is that of the whole batch, up to rounding, where label maps are given and in train-cls. End to end,
    background and foreground are balanced in each part by itself, and `model.drop_path` draws for a part."""
    optimizer: Literal["adamw", "sgd-poly"] = "adamw"
    """adamw: linear warmup, then cosine decay to 0. sgd-poly: SGD, the rate decays by (1 - t)^0.9, t from 0 to 1."""
    lr: Above0 = 1e-4
    """Largest learning rate."""
    weight_decay: Weight = 0.05
    """Weight decay of the optimiser, at least 0."""
    momentum: Share = 0.9
    """Momentum of sgd-poly, in [0, 1]; adamw does not use it."""
    warmup: Share = 0.05
    """Share of the steps, in [0, 1], in which adamw's rate rises linearly from 0."""
    attention_lr_factor: Above0 = 20.0
    """Learning rate of learned edits of attention, as a factor of the backbone's rate; they have no weight decay."""
    clip_norm: Weight = 1.0
    """Largest norm of the gradient; a longer gradient is scaled down to it. 0: no clipping."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the moving average of the weights, in [0, 1). 0: no average.

    With an average, its weights are validated and saved for use."""
    validate_every: Positive = 1
    """Epochs between two validations."""
    validate_size: Positive | None = None
    """Side of the square, pixels, to whose area an image is resized for validation. None: `augment.size`."""
    checkpoint_minutes: Above0 = 5.0
    """Minutes between two checkpoints. There is also one before the first step, at the end and when stopped."""
    on_bad_loss: Literal["stop", "skip"] = "stop"
    """On a loss or gradient that is NaN or infinite: stop the training, or skip the step."""


class ClassifySection(Optimisation):
    """`wsss train-cls`: schedule and optimiser."""

    least_epochs: ClassVar[int] = 4

    weight_gain: Weight = 0.0
    """Weight of the attention gain: the tags are to follow from what the explaining rows of attention add. 0: none.

    Each step compares with a second forward, whose explaining rows are even in one block of the last third."""
    adversarial: Weight = 0.0
    """Largest change of a pixel, in 1/255, of half of each batch: one step against the tags (FGSM). 0: none."""
    finetune: Literal["auto", "head", "top", "all"] = "auto"
    """What is trained: the head alone on the features of the given backbone (head), then the upper half of its blocks
    too (top), or all weights from the first step (all). "auto" takes "top" for a backbone with weights, else "all".

    The head is stopped by a held-out tenth of the tags. "top" then takes half the steps of the epochs, at least 200,
    each block at 0.7 times the rate of the one above it. With --init or --extend "auto" does as that run did, and "top"
    does not fit the head again."""
    distil: Literal["asymmetric", "symmetric", "none"] = "asymmetric"
    """With --extend: what of the attention is held to that of the old network: what is lost of it (asymmetric), every
    change (symmetric), or nothing."""
    weight_distil: Weight = 1.0
    """With --extend: weight of the attention that is distilled. 0: none."""


class SegmentSection(Optimisation):
    """`wsss train-seg`: schedule and optimiser, rounds and losses."""

    least_epochs: ClassVar[int] = 2

    lr: Above0 = 5e-5
    """Largest learning rate."""
    finetune: Literal["auto", "top", "all"] = "auto"
    """What is trained beside the decoder: the upper half of the blocks (top) or all of them (all). "auto" takes "top"
    with --init of a run that began from given weights, where the training split has fewer than 1,000 images.

    With "top" each block has 0.7 times the rate of the one above it."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the moving average of the weights, in [0, 1). 0: no average.

    With an average, its weights are validated and saved for use. End to end, its decoder is also the one whose
    probabilities enter the pseudo labels."""
    rounds: Positive = 2
    """Trainings in a row; each labels the training split for the next. Only end to end; 1 is as published.

    All rounds start from the same weights. Each but the last is a teacher: it makes pseudo labels of the training
    split, which the next round learns."""
    cls_share: Share = 0.5
    """Share of the epochs, in [0, 1], that train only the classifier, before pseudo labels are made. Only end to end
    without --init."""
    maps_share: Share = 0.3
    """Share of the segmentation steps, in [0, 1], whose pseudo labels come from class maps alone; the later steps
    combine maps and decoder (`wsss.labels.agreement`). 1 is as published."""
    lr_seg_factor: Above0 = 1.0
    """Learning rate of the segmentation phase, as a factor of the rate of the classification phase."""
    decoder_lr_factor: Above0 = 20.0
    """Learning rate of the new decoder, as a factor of the backbone's rate."""
    weight_energy: Weight = 0.0
    """Weight of the dense energy loss; the cross-entropies have weight 1. 0: not computed. Published: 1e-7, which loses
    small objects here (LOG.md)."""
    sigma_rgb: Above0 = 15.0
    """Reach of the dense energy in colour, 8-bit levels."""
    sigma_xy: Above0 = 100.0
    """Reach of the dense energy in space, pixels."""


TILE = 8192
"""Default of the side of windows: photos of up to 67 megapixels are read whole."""


class MapsSection(Section):
    """Class maps: where the network sees each class."""

    method: Method = "attention-gradient"
    """How class maps are computed: attention-gradient, getam, gradcam, rollout, chefer, legrad, attention, cam or
    objects.

    objects needs no tags: the patches are cut in two by their likeness. For a single class that is in every image."""
    coupling: Coupling = "released"
    """How GETAM combines attention and gradient: as in the released code, or as in the paper."""
    start_layer: Count | None = None
    """First block whose attention is used; 0 is the first of the network, as published. None: the upper half of the
    blocks, 6 of 12."""
    rows: Rows = "auto"
    """Rows of the attention that are used: of the class token, the mean over the patches (pool), or their sum (both).
    "auto" follows `model.readout`."""
    gamma: Above0 = 0.5
    """Power to which maps are raised before they are spread; below 1 it lifts weak evidence. 1 is as published."""
    spread: Count = 1
    """How many times maps are multiplied by the attention between patches; 0 is as published."""
    scales: Sizes | None = None
    """Sides in pixels, e.g. 224,320; an image is resized to the area of such a square.

    The aspect ratio is kept; the maps of several scales are averaged. None: 10/7 of the side of the training crops,
    320 for 224."""
    flip: bool = True
    """Also read the mirrored image and average."""
    tile: Positive = TILE
    """Side in pixels: pictures of a larger area than such a square are read in overlapping windows of this side.

    Each window is read as a picture is, at `maps.scales`; their scores are blended."""


class LabelsSection(Section):
    """From class maps to pseudo labels. Scores and probabilities are in [0, 1]."""

    background: Literal["power", "band"] = "band"
    """Background rule: power, or band (low, high, ignored between).

    "power" gives the background the score (1 - s)^exponent, where s is the strongest class score of the pixel."""
    exponent: Above0 = 32.0
    """Exponent of the power rule."""
    low: Share = 0.66
    """Band: a pixel whose strongest score is at most this is background.

    The default suits maps that were spread. Published maps have sharper peaks; the power rule suits them."""
    high: Share = 0.76
    """Band: a pixel whose strongest score is above this is foreground. Must be at least `labels.low`."""
    decoder: bool = True
    """Of a train-seg run: keep what maps and decoder agree on. A network without a decoder uses its maps alone."""
    softness: Above0 = 0.1
    """Where maps and decoder are combined: difference of scores that changes the odds of a class by a factor e."""
    confidence: Share = 0.6
    """Joint probability of maps and decoder below which a pixel is ignored."""
    saliency_threshold: Share = 0.5
    """Saliency, in [0, 1], above which a pixel is salient. Only with saliency maps."""
    mining_quantile: Share = 0.9
    """Outside the salient region, a pixel whose score of a class is above this quantile of the class's positive scores
    belongs to that class. Only with saliency maps."""
    opening: Count = 10
    """Side of a square, image pixels: parts of the foreground into which it does not fit become background. 0: none.

    make-pseudo does this only to labels of maps alone, not to labels that maps and decoder agree on."""
    pamr_iterations: Count = 10
    """Iterations of PAMR, which makes scores follow the edges of the image. 0: no refinement."""
    pamr_stride: Positive = 1
    """Refine at one Nth of each side: faster, coarser edges."""
    crf: bool = False
    """Refine with the dense CRF (wsss[crf])."""

    @model_validator(mode="after")
    def _band_is_ordered(self) -> LabelsSection:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, got {self.low} > {self.high}")
        return self


class PredictSection(Section):
    """Segmentation of images without tags."""

    scales: Sizes | None = None
    """Sides in pixels, e.g. 224,320; an image is resized to the area of such a square.

    The aspect ratio is kept; the probabilities of several scales are averaged. None: the side of the training crops
    and 10/7 of it, 224 and 320."""
    flip: bool = True
    """Also read the mirrored image and average."""
    tile: Positive = TILE
    """Side in pixels: pictures of a larger area than such a square are read in overlapping windows of this side.

    Each window is read as a picture is, at `predict.scales`; their probabilities are blended."""
    crf: bool = False
    """Refine with the dense CRF (wsss[crf])."""


class CrfSection(Section):
    """The dense CRF, wherever it is used; the defaults are usual for PASCAL VOC."""

    iterations: Positive = 10
    """Mean-field updates."""
    gaussian_sxy: Above0 = 3.0
    """Reach of the smoothness term, pixels."""
    gaussian_weight: Weight = 3.0
    """Weight of the smoothness term."""
    bilateral_sxy: Above0 = 80.0
    """Reach of the appearance term in space, pixels."""
    bilateral_srgb: Above0 = 13.0
    """Reach of the appearance term in colour, 8-bit levels."""
    bilateral_weight: Weight = 10.0
    """Weight of the appearance term."""
    side: Positive = 1024
    """Images of a larger area than a square of this side, pixels, are refined at that area, which bounds memory."""


class Config(Section):
    """Everything that decides a result."""

    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    run: RunSection = RunSection()
    augment: AugmentSection = AugmentSection()
    classify: ClassifySection = ClassifySection()
    segment: SegmentSection = SegmentSection()
    maps: MapsSection = MapsSection()
    labels: LabelsSection = LabelsSection()
    predict: PredictSection = PredictSection()
    crf: CrfSection = CrfSection()

    def moved(self, paths: Mapping[str, Path | None]) -> Config:
        """A copy for data that lie elsewhere now.

        Args:
            paths: "root", "tags", "saliency" -> where it is, or None where it was not said. A tags table or a saliency
                folder below the old root, of which nothing was said, is expected below the new one.
        """
        data = {name: path.absolute() for name, path in paths.items() if path is not None}
        old, new = self.data.root, data.get("root")
        for name in ("tags", "saliency"):
            path = getattr(self.data, name)
            if old is not None and new is not None and name not in data and path is not None:
                data[name] = new / path.relative_to(old) if path.is_relative_to(old) else path
        return self.model_copy(update={"data": self.data.model_copy(update=data)})

    def anchored(self) -> Config:
        """A copy whose relative paths are absolute, so that a run can be resumed from another working directory."""
        paths = {name: getattr(self.data, name) for name in ("root", "tags", "saliency")}
        absolute = {name: path.absolute() for name, path in paths.items() if path is not None}
        update: dict[str, Section] = {"data": self.data.model_copy(update=absolute)}
        if self.model.weights not in NO_FILE:
            update["model"] = self.model.model_copy(update={"weights": str(Path(self.model.weights).absolute())})
        return self.model_copy(update=update)
