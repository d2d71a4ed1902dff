"""Run the images of a set that remain through a network, in batches; threads finish each image, processes its CRF."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from wsss.config import RunSection
from wsss.data.scaled import ScaledBatch, ScaledImages, load_batches
from wsss.labels.crf import crf_processes
from wsss.machine import num_workers
from wsss.pool import Job, Pool
from wsss.reporting import Reporter
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
