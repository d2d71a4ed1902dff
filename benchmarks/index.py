"""The data index: opening a million entries, and the first scan of a real folder against the second start.

    python benchmarks/index.py --data DIR --split train_aug

The million entries are synthetic: names and facts, without files. They are opened as by a command, but the times of the
files are not looked up, because that depends on the disk. Memory is the growth of the resident memory of a new process.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from measuring import MEBIBYTE, added_memory, machine, resident_memory, table

from wsss.data.columns import Lists, Texts
from wsss.data.dataset import open_data
from wsss.data.entries import ENTRY, Entries
from wsss.data.facts import DIGEST_BYTES
from wsss.data.index import Scan, scan_images
from wsss.data.index_file import index_path, load_index, save_index
from wsss.data.records import Record, Records

CPU = torch.device("cpu")
NAME = "folder_{:03}/COCO_train2014_{:012}"
_opened: list[str] = []
"""Files below the data folder that were opened since this list was last cleared."""


def synthetic_records(count: int, folder: Path) -> Records:
    """Records with names such as those of COCO, 1 to 3 tags each."""
    names = (NAME.format(number % 1000, number) for number in range(count))
    return Records.of(
        (
            Record(name=name, image=folder / f"{name}.jpg", tags=(number % 80,) * (1 + number % 3))
            for number, name in enumerate(names)
        ),
        folder,
    )


def stamps(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(N, 3) synthetic lengths and times of files."""
    return np.arange(3 * count, dtype=np.int64).reshape(-1, 3)


def write_synthetic(count: int, folder: Path) -> None:
    """Write an index of synthetic records, and the columns of the records as a reader has them."""
    records, rows = synthetic_records(count, folder), np.zeros(count, ENTRY)
    rows["path"], rows["fault"], rows["size"] = records.paths.hashes(), -1, (480, 640)
    rows["length"], rows["modified"], rows["changed"] = stamps(count).T
    rows["digest"] = np.random.default_rng(0).integers(0, 256, (count, DIGEST_BYTES), dtype=np.uint8)
    save_index(folder, Entries(rows, ()))
    np.savez(
        folder / f"records{count}.npz",
        blob=records.paths.blob, path_starts=records.paths.starts_N, path_ends=records.paths.ends_N,
        name_starts=records.names.starts_N, name_ends=records.names.ends_N,
        tags=records.tags.values, tag_ends=records.tags.ends_N,
    )  # fmt: skip


def open_synthetic(count: int, folder: Path) -> tuple[Records, list[float]]:
    """The records with size and digest; seconds to load the index, to find the entries, and to fill the records."""
    with np.load(folder / f"records{count}.npz") as file:
        blob = file["blob"]
        records = Records(
            folder=folder,
            names=Texts(blob, file["name_starts"], file["name_ends"]),
            paths=Texts(blob, file["path_starts"], file["path_ends"]),
            tags=Lists(file["tags"], file["tag_ends"]),
            unknown=Lists(np.zeros(0, np.int16), np.zeros(count, np.uint32)),
            size_N2=np.zeros((count, 2), np.int32),
            digest_ND=np.zeros((count, DIGEST_BYTES), np.uint8),
        )
    times = [time.perf_counter()]
    index = load_index(folder)
    times.append(time.perf_counter())
    at_N = index.find(records.paths.hashes(), stamps(count))
    times.append(time.perf_counter())
    assert len(index) == count
    assert (at_N >= 0).all()
    filled = Scan(records, index, at_N).readable()
    times.append(time.perf_counter())
    return filled, np.diff(times).tolist()


def open_or_warm_up(count: int, folder: Path, *, warm_up: bool) -> None:
    """Open index and records; a function for ``added_memory``, which measures the peak."""
    open_synthetic(1000 if warm_up else count, folder / ("few" if warm_up else "many"))


def resident_growth(count: int, folder: Path) -> float:
    """Mebibytes that the opened records hold in a new process, without temporary memory of the opening."""
    open_synthetic(1000, folder / "few")
    before = resident_memory()
    records, _ = open_synthetic(count, folder / "many")
    return (resident_memory() - before) / MEBIBYTE if len(records) else 0.0


def load_or_warm_up(count: int, folder: Path, *, warm_up: bool) -> None:
    """Load the index only; a function for ``added_memory``."""
    assert len(load_index(folder / ("few" if warm_up else "many"))) == (1000 if warm_up else count)


def opens_below(root: Path) -> None:
    """Append every file below the folder that this process opens from now on to ``_opened``."""
    start = str(root.resolve())

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            path = os.path.realpath(arguments[0])
            if path.startswith(start):
                _opened.append(path)

    sys.addaudithook(note)


@contextmanager
def fresh_cache() -> Iterator[Path]:
    """Use an empty cache folder instead of the user's."""
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before


def synthetic_table(count: int) -> str:
    """Time and memory of ``count`` synthetic entries."""
    with fresh_cache() as folder:
        for name, number in (("few", 1000), ("many", count)):
            (folder / name).mkdir()
            write_synthetic(number, folder / name)
        _, seconds = open_synthetic(count, folder / "many")
        size = index_path(folder / "many").stat().st_size / MEBIBYTE
        alone = added_memory(CPU, load_or_warm_up, count, folder)
        peak = added_memory(CPU, open_or_warm_up, count, folder)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(resident_growth, (count, folder))
    rows = [
        ["load the index", f"{seconds[0]:.2f} s", "", f"{alone:.0f} MiB"],
        ["find every image", f"{seconds[1]:.2f} s", "", ""],
        ["fill size and digest", f"{seconds[2]:.2f} s", "", ""],
        ["in all, with the records", f"{sum(seconds):.2f} s", f"{memory:.0f} MiB", f"{peak:.0f} MiB"],
    ]
    header = [f"{count:,} synthetic entries", "time", "resident growth", "at its peak"]
    return f"{table(header, rows)}\n\nThe file of the index has {size:.0f} MiB."


def scan_table(data: Path, split: str | None) -> str:
    """Time and opened files of the first scan of a real folder, and of a second start."""
    opens_below(data)
    rows = []
    with fresh_cache():
        tagged = open_data(data, split=split)
        for what in ("first scan", "second start"):
            _opened.clear()
            began = time.perf_counter()
            broken = scan_images(tagged.records).broken()
            seconds = time.perf_counter() - began
            rate, opened = f"{len(tagged) / seconds:,.0f}", str(len(set(_opened)))
            rows.append([what, f"{seconds:.2f} s", rate, opened, str(len(broken))])
    return table([f"{len(tagged)} images of {tagged.split}", "time", "images/s", "images opened", "broken"], rows)


def main(
    data: Annotated[Path | None, typer.Option(help="A data folder to scan.")] = None,
    split: str | None = None,
    count: Annotated[int, typer.Option(help="Synthetic entries.")] = 1_000_000,
) -> None:
    """Print the tables."""
    print(f"### Data index ({machine(CPU)})\n")
    print(synthetic_table(count))
    if data is not None:
        print(f"\n{scan_table(data, split)}")


if __name__ == "__main__":
    typer.run(main)
