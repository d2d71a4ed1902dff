"""Label the images of a set that remain: in batches as if all did, finished by threads, refined by processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from wsss.config import Config
from wsss.data.records import Record
from wsss.data.scaled import ScaledBatch, ScaledImages, load_batches
from wsss.labels.crf import crf_processes
from wsss.machine import num_workers
from wsss.pool import Pool
from wsss.reporting import Reporter
from wsss.stopping import StopRequest

BATCH_PIXELS = {"cpu": 2**20}
"""Default of ``run.batch_pixels``, by type of device; other devices have ``MANY_PIXELS``."""

MANY_PIXELS = 2**23


class Labeller(Protocol):
    """Makes the label maps of batches."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def jobs(
        self, batches: Iterable[ScaledBatch], crf: Callable[..., np.ndarray[Any, Any]]
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        """Compute each batch; what remains to be done for an image, by its name.

        Args:
            batches: of images; those that are not to be done are passed over.
            crf: the name, then the arguments of a `Crf`.
        """
        ...


def label_remaining(
    what: str,
    records: Sequence[Record],
    todo: Collection[str],
    labeller: Labeller,
    config: Config,
    reporter: Reporter,
    stop: StopRequest,
    *,
    scales: Sequence[int],
    stride: tuple[int, int],
    crf: bool,
) -> None:
    """Label those images whose names are in ``todo``, with a progress bar over all.

    Args:
        what: is made, in the plural.
        records: the whole set.
        todo: names of the images that remain.
        labeller: does the work.
        config: pixels of a batch and workers.
        reporter: progress.
        stop: asked after each image.
        scales: sides, in pixels, of squares whose area an image is brought to.
        stride: (rows, columns) of a patch.
        crf: whether the labeller needs the dense CRF.

    Raises:
        MachineError: the CRF is wanted and not installed, or its process died, or the disk refuses.
        Interrupted: a signal asked to stop; the label maps made so far are whole.
    """
    total, workers = len(records), num_workers(config.run)
    pixels = config.run.batch_pixels or BATCH_PIXELS.get(labeller.device.type, MANY_PIXELS)
    images = remaining_batches(records, todo, scales, stride, max(1, pixels // max(scales) ** 2))
    reporter.begin(what, total, total - len(todo))
    processes = crf_processes(min(workers, len(todo)) if crf else 0)
    with Pool(processes.count) as pool, processes:
        results = pool.run(labeller.jobs(load_batches(images, workers, labeller.device), processes.call))
        for done, _ in enumerate(results, total - len(todo) + 1):
            reporter.advance()
            stop.leave_if_asked(f"after {done} of {total} images", "run the same command again")


def remaining_batches(
    records: Sequence[Record], todo: Collection[str], scales: Sequence[int], stride: tuple[int, int], batch_size: int
) -> ScaledImages:
    """The batches of all records that hold one of these names.

    An image meets the same neighbours whenever it is done, so what was cut short and done again is, to the bit, what
    would have been done at once: the last bits of a matrix product depend on the size of the batch.
    """
    images = ScaledImages(records, scales, stride, batch_size)
    images.batches = [batch for batch in images.batches if any(record.name in todo for record in batch)]
    return images
