"""Run the images of a set that remain through a network, in batches; threads finish each image, processes its CRF."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsss.config import RunSection
from wsss.data.masks import IGNORE_INDEX
from wsss.data.records import Record
from wsss.data.scaled import ScaledBatch, ScaledImages, load_batches
from wsss.data.windows import is_large
from wsss.labels.crf import crf_processes
from wsss.machine import num_workers
from wsss.pool import Job, Pool
from wsss.reporting import Reporter
from wsss.shard import Shard
from wsss.stopping import StopRequest

Finish = Callable[[Iterable[ScaledBatch], Callable[..., np.ndarray[Any, Any]]], Iterator[Job[None]]]
"""Called with batches and with the CRF (an image name, then the arguments of a `Crf`); gives one job an image."""


def process_remaining(
    what: str,
    images: ScaledImages,
    todo: Collection[str],
    jobs: Finish,
    run: RunSection,
    device: torch.device,
    reporter: Reporter,
    stop: StopRequest,
    *,
    crf: bool,
) -> None:
    """Process the batches that hold an image of ``todo``, with a progress bar over all images.

    Batches are those of the whole set. So an image shares its batch with the same images whenever it is done, and a
    resumed run is bit for bit one that was never interrupted: the last bits of a matrix product depend on the batch.

    Args:
        what: is made, in the plural.
        images: the batches of the whole set.
        todo: names of the images that remain.
        jobs: computes batches; each job writes the files of one image of ``todo``.
        run: loader workers, as many processes for the CRF.
        device: where batches are used.
        reporter: progress.
        stop: checked after each image.
        crf: whether jobs call the CRF.

    Raises:
        MachineError: the CRF is not installed, or its process died, or the disk refuses.
        Interrupted: a signal arrived; the files made so far are complete.
    """
    total, workers = sum(len(batch) for batch in images.batches), num_workers(run)
    images.batches = [batch for batch in images.batches if any(record.name in todo for record in batch)]
    reporter.begin(what, total, total - len(todo))
    processes = crf_processes(min(workers, len(todo)) if crf else 0)
    with Pool(processes.count) as pool, processes:
        results = pool.run(jobs(load_batches(images, workers, device), processes.call))
        for done, _ in enumerate(results, total - len(todo) + 1):
            reporter.advance()
            stop.leave_if_asked(f"after {done} of {total} images", "run the same command again")


def take_share(
    images: ScaledImages, large: Sequence[Record], shard: Shard | None
) -> tuple[list[Record], frozenset[str]]:
    """Leave the batches of a shard in ``images``. Batches are those of the whole set, see `process_remaining`.

    Args:
        images: the batches of the whole set.
        large: the pictures that are read in windows.
        shard: None for all.

    Returns:
        The large pictures of the shard, and the names of all of its images.
    """
    if shard is not None:
        images.batches = list(shard.part(images.batches))
        large = shard.part(large)
    names = [record.name for batch in images.batches for record in batch] + [record.name for record in large]
    return list(large), frozenset(names)


def large_records(records: Sequence[Record], tile: int) -> tuple[list[Record], list[Record]]:
    """The records that are read whole, and those read in windows of ``tile`` pixels."""
    whole: list[Record] = []
    large: list[Record] = []
    for record in records:
        (large if is_large(record.upright_size(), tile) else whole).append(record)
    return whole, large


def tile_facts(large: Sequence[Record], tile: int) -> dict[str, int]:
    """What a manifest records of the windows, where any picture is read in them."""
    return {"tile": tile} if large else {}


def without_no_data(label_HW: NDArray[np.uint8], record: Record) -> NDArray[np.uint8]:
    """A label map that is ignored where the picture of a TIFF has no data."""
    valid_HW = record.valid()
    return label_HW if valid_HW is None else np.where(valid_HW, label_HW, IGNORE_INDEX).astype(np.uint8)


def range_facts(records: Sequence[Record]) -> dict[str, list[int]]:
    """What a manifest records of the range of 16-bit images, where there are any."""
    levels = records[0].levels if records else None
    return {} if levels is None else {"range": list(levels)}


def process_large(
    what: str, records: Sequence[Record], each: Callable[[Record], None], reporter: Reporter, stop: StopRequest
) -> None:
    """Process large pictures one after the other, with a progress bar of their own where there are any.

    Raises:
        Interrupted: a signal arrived; the files made so far are complete.
    """
    if not records:
        return
    reporter.say(f"{len(records)} of the pictures are larger than --tile and are read in overlapping windows")
    reporter.begin(f"{what} of large pictures", len(records), 0)
    for done, record in enumerate(records, 1):
        each(record)
        reporter.advance()
        stop.leave_if_asked(f"after {done} of {len(records)} large pictures", "run the same command again")
