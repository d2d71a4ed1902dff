"""Seed mIoU of every class map method on one classifier: the seed tables of RESULTS.md.

    python benchmarks/seeds.py RUN --data DIR --split train --split val -o seeds.json

Every method uses the same forward and backward passes. Seeds are scored at image size, with one scale and with several,
before and after PAMR, at a fixed threshold and at the best one (an oracle: chosen on the masks that it is scored with).
The fixed threshold of the first split is that of the power rule, where (1 - t)^32 = t. For a later split it is, for
each method, the best threshold of the first split. Masks are read for scoring only.

Shape suffixes: B images, K classes, N tokens, h x w patch grid, H x W pixels, M maps of an image.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from measuring import machine
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from wsss.data.dataset import open_data
from wsss.data.records import TaggedSet
from wsss.data.scaled import ScaledImages, load_batches
from wsss.evaluation.confusion import ThresholdSweep
from wsss.labels.pamr import pamr_affinity, pamr_apply
from wsss.machine import pick_device
from wsss.maps.affinity import spread
from wsss.maps.generate import frozen
from wsss.maps.methods import BY_GRADIENT, CLASS_AGNOSTIC, Reading, gradcam
from wsss.maps.passes import one_class_an_image
from wsss.maps.present import PresentMaps
from wsss.maps.scores import normalise_scores, normalised
from wsss.maps.tape import AttentionTape
from wsss.models.checkpoint import load_network
from wsss.models.network import Network

THRESHOLDS = np.linspace(0, 1, 101)
POWER_RULE = 0.07
"""Solution of (1 - t)^32 = t, to two digits; below it the published background score is the larger one."""

SETTINGS = ("1 scale", "1 scale + PAMR", "multi", "multi + PAMR")


@dataclass(frozen=True, slots=True)
class Variant:
    """A method, GETAM's coupling, the first block that is used and the number of spreading steps."""

    method: str
    coupling: str = "released"
    start: int = 0
    spread: int = 0

    def name(self, depth: int) -> str:
        """Name in the table."""
        if self.method in ("cam", "gradcam"):
            return self.method
        method = f"{self.method} ({self.coupling})" if self.method == "getam" else self.method
        blocks = f"{method}, blocks {self.start}-{depth - 1}"
        return f"{blocks}, root, spread {self.spread}" if self.spread else blocks


def variants(depth: int) -> list[Variant]:
    """Every method, with both couplings of GETAM, over all blocks and over the last half of them."""
    found = [Variant("cam"), Variant("gradcam")]
    for start in (0, depth // 2):
        found += [Variant("getam", "released", start), Variant("getam", "paper", start)]
        found += [Variant(name, start=start) for name in ("attention-gradient", "attention", "rollout", "chefer")]
    found += [Variant("getam", start=start, spread=1) for start in (0, depth // 2)]
    return [*found, Variant("attention-gradient", start=depth // 2, spread=1)]


def read_all(network: Network, images_B3HW: Tensor, present_BK: Tensor, wanted: Sequence[Variant]) -> list[Tensor]:
    """Scores (B, K, h, w) of each variant from one forward and one backward per round of tags."""
    tokens: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        tokens.append(output)

    with frozen(network), torch.enable_grad():
        handle = network.backbone.gradcam_layer.register_forward_hook(keep)
        with AttentionTape(network.backbone.vit.blocks, name=network.backbone.name) as tape:
            features = network.features(images_B3HW)
            logits_BK = network.readout(features)
        handle.remove()
        outputs = [attention.output_BAND for attention in tape.attentions]
        prefix = network.backbone.num_prefix_tokens
        totals = [logits_BK.new_zeros(*logits_BK.shape, *features.grid) for _ in wanted]
        for total, variant in zip(totals, wanted, strict=True):
            if variant.method in CLASS_AGNOSTIC:
                reading = _reading(network, tape, variant)
                row_BN = CLASS_AGNOSTIC[variant.method](reading)[:, prefix:]
                total += row_BN.detach().reshape(-1, 1, *features.grid)
            elif variant.method == "cam":
                total += network.readout.cam(features).detach()
        rounds = list(one_class_an_image(present_BK))
        for number, chosen_BK in enumerate(rounds):
            score = (logits_BK * chosen_BK).sum()
            *gradients, token_gradient = torch.autograd.grad(
                score, [*outputs, tokens[0]], retain_graph=number + 1 < len(rounds)
            )
            for total, variant in zip(totals, wanted, strict=True):
                if variant.method in BY_GRADIENT:
                    row_BN = BY_GRADIENT[variant.method](
                        _reading(network, tape, variant), list(gradients[variant.start :])
                    )[:, prefix:]
                elif variant.method == "gradcam":
                    row_BN = gradcam(tokens[0][:, prefix:], token_gradient[:, prefix:])
                else:
                    continue
                total += chosen_BK[:, :, None, None] * row_BN.detach().reshape(-1, 1, *features.grid)
        for i, variant in enumerate(wanted):
            if variant.spread:
                rooted_BKM = totals[i].clamp_min(0).sqrt().flatten(2)
                totals[i] = spread(rooted_BKM, tape.attentions, prefix, variant.spread).reshape(totals[i].shape)
    return [dense_scores(total, present_BK) for total in totals]


def dense_scores(maps_BKhw: Tensor, present_BK: Tensor) -> Tensor:
    """(B, K, h, w) in [0, 1]; those of absent classes are 0."""
    return normalise_scores(PresentMaps.from_dense(maps_BKhw, present_BK)).dense()


def _reading(network: Network, tape: AttentionTape, variant: Variant) -> Reading:
    return Reading(
        attentions=tape.attentions[variant.start :],
        num_prefix_tokens=network.backbone.num_prefix_tokens,
        fed=network.readout.fed,
        coupling="paper" if variant.coupling == "paper" else "released",
    )


def averaged(network: Network, scales: Sequence[Tensor], present_BK: Tensor, wanted: Sequence[Variant]) -> list[Tensor]:
    """Scores of each variant averaged over all scales, each with its mirror image, on the finest grid."""
    sums: list[Tensor] = []
    finest = max(scales, key=lambda images: images.shape[2] * images.shape[3])
    grid = tuple(side // step for side, step in zip(finest.shape[2:], network.backbone.stride, strict=True))
    for images in scales:
        for mirrored in (False, True):
            read = read_all(network, images.flip(3) if mirrored else images, present_BK, wanted)
            for i, scores in enumerate(read):
                turned = scores.flip(3) if mirrored else scores
                scores = F.interpolate(turned, size=grid, mode="bilinear", align_corners=False)
                if len(sums) <= i:
                    sums.append(scores)
                else:
                    sums[i] = sums[i] + scores
    return [dense_scores(total, present_BK) for total in sums]


Figures = dict[str, dict[str, float]]


def score_split(
    network: Network, tagged: TaggedSet, scales: tuple[int, ...], first: Figures | None, device: torch.device
) -> Figures:
    """The figures of one split: for each method and setting the fixed and the oracle mIoU and their thresholds.

    ``first`` contains the figures of the first split, which gives the fixed thresholds; None if this is the first.
    """
    wanted = variants(network.backbone.depth)
    settings = SETTINGS
    classes = len(tagged.classes) + 1
    sweeps = {(v, s): ThresholdSweep(classes, THRESHOLDS) for v in range(len(wanted)) for s in settings}
    records = [record for record in tagged.records if tagged.has_truth(record)]
    images = ScaledImages(records, scales, network.backbone.stride, 2**20, images=True)
    for batch in track(load_batches(images, 0), f"seeds of {tagged.split}", len(images)):
        present_BK = torch.from_numpy(np.stack([tagged.present(record) for record in batch.records])).to(device)
        at_scales = batch.at_scales(device)
        single = read_all(network, at_scales[0], present_BK, wanted)
        several = averaged(network, at_scales, present_BK, wanted)
        for b, record in enumerate(batch.records):
            truth_HW = tagged.truth(record)
            assert truth_HW is not None
            tags = list(record.tags)
            maps_MHW = torch.cat(
                [
                    F.interpolate(scores[b : b + 1, tags], size=truth_HW.shape, mode="bilinear", align_corners=False)[0]
                    for scores in (*single, *several)
                ]
            )
            image_13HW = batch.images[b].to(device).permute(2, 0, 1)[None].float() / 255
            refined_MHW = pamr_apply(pamr_affinity(image_13HW), maps_MHW[None])[0]
            _count(sweeps, len(wanted), ("1 scale", "multi"), maps_MHW, tags, truth_HW)
            _count(sweeps, len(wanted), ("1 scale + PAMR", "multi + PAMR"), refined_MHW, tags, truth_HW)
    figures: Figures = {}
    for v, variant in enumerate(wanted):
        name = variant.name(network.backbone.depth)
        figures[name] = row = {}
        for setting in settings:
            oracle, matrix = sweeps[v, setting].oracle()
            fixed = POWER_RULE if first is None else first[name][f"{setting}: oracle threshold"]
            row[f"{setting}: fixed"] = sweeps[v, setting].at(fixed).mean_iou()
            row[f"{setting}: fixed threshold"] = fixed
            row[f"{setting}: oracle"] = matrix.mean_iou()
            row[f"{setting}: oracle threshold"] = oracle
    return figures


def _count(
    sweeps: dict[tuple[int, str], ThresholdSweep],
    count: int,
    settings: tuple[str, str],
    maps_MHW: Tensor,
    tags: list[int],
    truth_HW: np.ndarray,
) -> None:
    """Add one image to the sweeps of every variant; ``maps_MHW`` is ordered by setting, variant and class."""
    everything = maps_MHW.reshape(2, count, len(tags), *maps_MHW.shape[1:])
    classes = torch.tensor(tags, device=maps_MHW.device) + 1
    for setting, of_setting in zip(settings, everything, strict=True):
        for v in range(count):
            best_HW, rank_HW = normalised(of_setting[v]).max(dim=0)
            sweeps[v, setting].update(best_HW, classes[rank_HW], truth_HW)


def table(figures: Figures, scales: tuple[int, ...]) -> str:
    """Markdown: fixed @threshold / oracle @threshold for each setting, in percent."""
    lines = [f"| map | {' | '.join(SETTINGS)} |", "|---" * (len(SETTINGS) + 1) + "|"]
    for name, row in figures.items():
        cells = [
            " / ".join(
                f"{100 * row[f'{setting}: {rule}']:.1f} @{row[f'{setting}: {rule} threshold']:.2f}"
                for rule in ("fixed", "oracle")
            )
            for setting in SETTINGS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    note = f"1 scale: {scales[0]} px; multi: {', '.join(map(str, scales))} px, each with flip."
    return "\n".join([*lines, "", f"mIoU %, fixed @threshold / oracle @threshold. {note}"])


def main(
    run: Path,
    data: Annotated[Path, typer.Option()],
    split: Annotated[list[str], typer.Option()],
    output: Annotated[Path | None, typer.Option("-o")] = None,
    scales: str = "224,320",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    limit: Annotated[int, typer.Option(help="Number of images to score; 0 scores all.")] = 0,
) -> None:
    """Print one table a split."""
    where = pick_device(device)
    network, _, path = load_network(run)
    network.to(where)
    sides = tuple(int(side) for side in scales.split(","))
    everything: dict[str, Figures] = {}
    for name in split:
        tagged = open_data(data, split=name, classes=network.classes)
        if limit:
            tagged = type(tagged)(
                root=tagged.root, split=tagged.split, classes=tagged.classes, records=tagged.records[:limit],
                mask_folder=tagged.mask_folder,
            )  # fmt: skip
        began = time.monotonic()
        everything[name] = score_split(network, tagged, sides, next(iter(everything.values()), None), where)
        print(f"\n### {name}: {len(tagged)} images, {path}, {time.monotonic() - began:.0f} s ({machine(where)})\n")
        print(table(everything[name], sides), flush=True)
    if output is not None:
        output.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
