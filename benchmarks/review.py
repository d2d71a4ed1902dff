"""What share of the lost pixels the first part of a review queue holds: the table of benchmarks/results/review.md.

    python benchmarks/review.py FOLDER --data DIR --split train

A pixel is lost where the label map differs from the mask, ignored pixels included; "committed" counts those alone that
the label map does not ignore. Correcting the first 10% of the queue mends what is printed in that row; a random order
mends 10% on average, and the oracle, which knows the masks, the most that is possible.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from wsss.data.dataset import open_data
from wsss.data.masks import IGNORE_INDEX, read_mask
from wsss.data.truth import read_truth
from wsss.inference.review import review_queue

RANDOM = 1000
"""Random orders."""


def main(folder: Path, data: Annotated[Path, typer.Option()], split: str = "train") -> None:
    """Print the table."""
    tagged = open_data(data, split=split)
    records = {record.name: record for record in tagged.records if tagged.has_truth(record)}
    queue = [one for one in review_queue(folder) if one.name in records]
    lost, wrong = [], []
    for one in queue:
        label_HW, truth_HW = read_mask(one.label), read_truth(tagged, records[one.name])
        known_HW = truth_HW != IGNORE_INDEX
        lost.append(int(np.count_nonzero(known_HW & (label_HW != truth_HW))))
        wrong.append(int(np.count_nonzero(known_HW & (label_HW != truth_HW) & (label_HW != IGNORE_INDEX))))
    print(f"{len(queue)} images of {split}, doubt: {queue[0].why}")
    print("| first | lost pixels | of committed | oracle | random, mean and range of 95% |\n|---|---|---|---|---|")
    for percent in (5, 10, 20, 50):
        count = max(1, round(len(queue) * percent / 100))
        low, mean, high = random_share(np.array(lost), count)
        shares = (share(lost, count), share(wrong, count), share(sorted(lost, reverse=True), count))
        cells = " | ".join(f"{100 * value:.1f} %" for value in shares)
        print(f"| {percent} % ({count}) | {cells} | {100 * mean:.1f} % ({100 * low:.1f}-{100 * high:.1f}) |")


def share(pixels: list[int], count: int) -> float:
    """Share of all pixels that the first images hold."""
    return sum(pixels[:count]) / max(1, sum(pixels))


def random_share(pixels_N: NDArray[np.int64], count: int) -> tuple[float, float, float]:
    """2.5th percentile, mean and 97.5th percentile of `share` over random orders."""
    generator = np.random.default_rng(0)
    shares = [generator.permutation(pixels_N)[:count].sum() / pixels_N.sum() for _ in range(RANDOM)]
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(low), float(np.mean(shares)), float(high)


if __name__ == "__main__":
    typer.run(main)
