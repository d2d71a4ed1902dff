"""Pictures of what goes wrong, for docs/failures.md: small trainings on generated sets that class maps find hard.

    python benchmarks/failures.py OUT --weights deit_tiny_patch16_224.safetensors --pictures docs/pictures

- ``small``, ``thin`` and ``tissue`` are those of ``domains.py``.
- ``ground``: striped balls that always lie on rippled blue; every other image shows plain balls on other grounds.

Each kind is trained with DeiT-Tiny: the classifier's head, then 90 steps of segmentation in crops of 128 px. That is
short; the failures shown are those that more steps do not mend. Its picture has a row for each of
two unseen images: image, class map, pseudo label, prediction, truth. The two are chosen without looking: the image
whose prediction has the median mIoU, and the worst but one in ten. Trainings that are finished are kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import domains
import numpy as np
import typer
import yaml
from domains import KINDS, SIDE, Floats, Painted, cover, outline
from few_segmentation import trained
from measuring import CPU, machine
from numpy.random import Generator
from numpy.typing import NDArray

from wsss.config import Config, resolve
from wsss.data.dataset import open_data
from wsss.data.painting import background, fill
from wsss.data.records import Record, TaggedSet
from wsss.evaluation.confusion import ConfusionMatrix
from wsss.evaluation.tagging import tag_map
from wsss.inference.labeller import Labeller
from wsss.inference.score import tag_scores
from wsss.inference.segmenter import Segmenter
from wsss.inference.showing import heat
from wsss.models.network import Network
from wsss.outputs.pictures import contact_sheet, overlay, with_key, write_jpeg

SHOWN = ("small", "thin", "ground", "tissue")
TILE = 150
"""Width of a picture in a row, pixels."""
SHARES = (0.5, 0.1)
"""Which images are shown: those with this share of the others below them, by mIoU."""

Labels = NDArray[np.uint8]


def water(random: Generator) -> Floats:
    """Rippled blue, (SIDE, SIDE, 3)."""
    y_H1, x_1W = np.ogrid[:SIDE, :SIDE]
    wave_HW = np.sin(y_H1 / random.uniform(2.5, 4.5) + 2 * np.sin(x_1W / random.uniform(12, 25)))
    light_HW = (0.5 + 0.12 * wave_HW).astype(np.float32)
    colour: Floats = light_HW[..., None] * np.array((0.45, 0.9, 1.5), np.float32)
    return colour


def ground(random: Generator) -> Painted:
    """A striped ball (1) on water, or plain balls on another ground: half of the images each."""
    there = random.random() < 0.5
    image_HW3 = water(random) if there else background(random, SIDE, SIDE)
    mask_HW = np.zeros((SIDE, SIDE), np.uint8)
    y_H1, x_1W = np.ogrid[:SIDE, :SIDE]
    for _ in range(int(random.integers(1, 3))):
        points = outline(random, 0, random.uniform(14, 26)) + random.uniform(30, SIDE - 30, 2)
        first, second = random.uniform(0.1, 1.0, (2, 3)).astype(np.float32)
        stripes_HW = np.sin((x_1W + y_H1) * (2 * np.pi / random.uniform(9, 14))) > 0
        colour = np.where(stripes_HW[..., None], first, second) if there else first
        cover(image_HW3, mask_HW, fill(points, SIDE, SIDE), colour.astype(np.float32), int(there))
    return image_HW3, mask_HW


KINDS["ground"] = (ground, ("float",))


def settings(folder: Path, weights: Path | None) -> dict[str, Any]:
    """Config keys of a kind's trainings."""
    return {
        "data.root": folder,
        "run.workers": 0,
        "model.backbone": "deit_tiny_patch16_224",
        "model.weights": str(weights) if weights else "pretrained",
        "augment.size": 128,
        "classify.finetune": "head",
        "classify.validate_every": 1000,
        "segment.validate_every": 1000,
        "segment.rounds": 1,
        "segment.batch_size": 4,
        "segment.epochs": 3,
    }


def ranked(network: Network, val: TaggedSet, config: Config) -> tuple[list[Record], float]:
    """Images of ``val`` with a class by the mIoU of their predictions, the lowest first, and the mIoU of all."""
    segmenter, whole = Segmenter(network, config, CPU), ConfusionMatrix(len(val.classes) + 1)
    found: list[tuple[float, Record]] = []
    for record in val.records:
        truth_HW, one = val.truth(record), ConfusionMatrix(len(val.classes) + 1)
        assert truth_HW is not None
        one.update(segmenter.predict(record.decode()).label_HW, truth_HW)
        whole.counts += one.counts
        if record.tags:
            found.append((one.mean_iou(), record))
    return [record for _, record in sorted(found, key=lambda pair: pair[0])], whole.mean_iou()


def row(record: Record, val: TaggedSet, makers: tuple[Labeller, Segmenter]) -> tuple[list[tuple[str, Labels]], Labels]:
    """Captioned pictures of one image, and the class indices that they show."""
    labeller, segmenter = makers
    image_HW3, truth_HW = record.decode(), val.truth(record)
    assert truth_HW is not None
    names = [val.classes[tag] for tag in record.tags]
    label_HW, predicted_HW = labeller.label(image_HW3, names), segmenter.predict(image_HW3).label_HW
    tiles = [
        ("image", image_HW3),
        (f"class map: {names[0]}", heat(image_HW3, labeller.maps(image_HW3, names)[names[0]])),
        ("pseudo label", overlay(image_HW3, label_HW)),
        ("prediction", overlay(image_HW3, predicted_HW)),
        ("truth", overlay(image_HW3, truth_HW)),
    ]
    return tiles, np.concatenate([label_HW, predicted_HW, truth_HW])


def main(
    out: Path,
    weights: Annotated[Path | None, typer.Option(help="Of DeiT-Tiny; else timm downloads them.")] = None,
    pictures: Annotated[Path, typer.Option(help="Folder of the JPEGs.")] = Path("pictures"),
    kinds: str = ",".join(SHOWN),
    train: Annotated[int, typer.Option(help="Images to train on.")] = 120,
    val: Annotated[int, typer.Option(help="Unseen images.")] = 40,
    assignments: Annotated[list[str] | None, typer.Option("--set", help="key=value, as of wsss.")] = None,
) -> None:
    """Write one JPEG a kind and print a line about each."""
    print(machine(CPU), flush=True)
    domains.TRAIN, domains.VAL = train, val
    for kind in kinds.split(","):
        folder = domains.write_set(out / "data" / kind, kind)
        flags = settings(folder, weights)
        pairs = (pair.split("=", 1) for pair in assignments or ())
        flags |= {key: yaml.safe_load(value) for key, value in pairs}
        config, unseen = resolve(None, (), flags), open_data(folder, split="val")
        classifier = trained(out / "runs" / f"{kind}-cls", flags, None).eval()
        network = trained(out / "runs" / f"{kind}-seg", flags, out / "runs" / f"{kind}-cls").eval()
        records, mean_iou = ranked(network, unseen, config)
        makers = Labeller(classifier, config, CPU), Segmenter(network, config, CPU)
        rows = [row(records[int(share * (len(records) - 1))], unseen, makers) for share in SHARES]
        tiles = [tile for some, _ in rows for tile in some]
        held = np.concatenate([labels.ravel() for _, labels in rows])
        write_jpeg(pictures / f"failure-{kind}.jpg", with_key(contact_sheet(tiles, 5, TILE), held, unseen.classes), 80)
        found = tag_map(*tag_scores(classifier, unseen, config, CPU))
        print(f"{kind}: tag mAP {found:.3f}, mIoU of predictions {mean_iou:.3f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
