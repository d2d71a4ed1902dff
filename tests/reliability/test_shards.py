"""Several processes write one folder: their union is what a single process writes, also after kills."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from wsss.config import to_yaml
from wsss.errors import DataError, UsageError
from wsss.launcher import Place
from wsss.outputs.journal import JOURNAL, read_journal
from wsss.outputs.merge import merge_labels
from wsss.outputs.shards import held_together, read_records, refuse_unfinished
from wsss.reporting import Silent
from wsss.shard import Shard, chosen_shard, parse_shard


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the journal, whose lines come in the order of the threads."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != JOURNAL)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_equal(single: Path, merged: Path) -> None:
    assert contents(merged) == contents(single)
    assert read_journal(merged) == read_journal(single)
    assert len((merged / JOURNAL).read_bytes().splitlines()) == len(read_journal(single))


def run_all(warm: Any, command: list[object], count: int, *, but: tuple[int, ...] = ()) -> None:
    """Run shards side by side."""
    running = [warm.start(*command, "--shard", f"{index}/{count}") for index in range(count) if index not in but]
    for one in running:
        assert one.wait() == 0, one.error


@pytest.fixture
def made(
    tmp_path_factory: pytest.TempPathFactory, tiny_config: Any, warm: Any, scenes: Path
) -> dict[str, list[object]]:
    """Commands that write a folder, up to its name."""
    folder = tmp_path_factory.getbasetemp() / "trained"
    config, run = folder / "config.yaml", folder / "run"
    if not folder.is_dir():
        folder.mkdir()
        config.write_text(to_yaml(tiny_config(segment__epochs=1, run__workers=0, run__batch_pixels=3 * 48**2)))
        warm.run("train-seg", "-c", config, "-o", run)
    return {
        "pseudo": ["make-pseudo", run, "-c", config, "--save-scores", "--overlays", 5, "-o"],
        "masks": ["predict", run, scenes / "images", "-c", config, "-o"],
    }


def test_the_union_is_the_single_run(tmp_path: Path, made: dict[str, list[object]], warm: Any) -> None:
    for name, command in made.items():
        single, out = tmp_path / f"{name}-single", tmp_path / f"{name}-shards"
        warm.run(*command, single)
        run_all(warm, [*command, out], 3, but=(1,))
        with pytest.raises(DataError, match="2 of 3 shards are done; missing: 1/3"):
            merge_labels(out, Silent())
        assert not json.loads((out / "manifest.json").read_text())["counts"]
        with pytest.raises(DataError, match="its 3 shards are not merged"):
            refuse_unfinished(out)

        killed = warm.start(*command, out, "--shard", "1/3", kill_at=30)
        assert killed.wait() == -signal.SIGKILL
        with pytest.raises(DataError, match="begun and not finished: 1/3"):
            merge_labels(out, Silent())
        assert warm.start(*command, out).wait() == 2  # one process alone: not while shards lie there
        other = warm.start(*command, out, "--shard", "0/2")
        assert other.wait() == 2
        assert "3 shards that are not merged, now it is to be made by 2 shards" in other.error_and_fix[0]
        again = warm.run(*command, out, "--shard", "1/3")
        assert "shard 1/3 is done; when all are: wsss merge" in again.error

        warm.run("merge", out)
        assert_equal(single, out)
        assert not list(out.glob(".lock*"))
        warm.run("merge", out)  # again: no harm
        run_all(warm, [*command, out], 2)  # nothing is left to do
        assert json.loads((out / "manifest.json").read_text())["counts"]
        warm.run("merge", out)
        assert_equal(single, out)


def test_ranks_are_shards_and_the_last_one_merges(tmp_path: Path, made: dict[str, list[object]], warm: Any) -> None:
    single, out = tmp_path / "single", tmp_path / "ranks"
    warm.run(*made["masks"], single)
    running = [warm.start(*made["masks"], out, environment={"RANK": str(i), "WORLD_SIZE": "2"}) for i in range(2)]
    for one in running:
        assert one.wait() == 0, one.error
    assert any("all 2 shards are merged" in one.error for one in running)
    assert_equal(single, out)


def test_another_division_of_what_is_done(tmp_path: Path, made: dict[str, list[object]], warm: Any) -> None:
    """Half of three shards, then two shards: nothing is made twice, and the result is the same."""
    single, out = tmp_path / "single", tmp_path / "out"
    warm.run(*made["pseudo"], single)
    warm.run(*made["pseudo"], out, "--shard", "2/3")
    done = len(read_journal(out))
    assert 0 < done < len(read_journal(single))
    warm.run("merge", "--partial", out)
    assert not read_records(out)
    run_all(warm, [*made["pseudo"], out], 2)
    warm.run("merge", out)
    assert_equal(single, out)


def test_the_same_shard_twice_and_overwrite_are_refused(
    tmp_path: Path, made: dict[str, list[object]], warm: Any
) -> None:
    out = tmp_path / "out"
    with held_together(out, Shard(0, 2), Silent()):
        second = warm.start(*made["masks"], out, "--shard", "0/2")
        assert second.wait() == 2
        assert "is in use by process" in second.error_and_fix[0]
        alone = warm.start(*made["masks"], out)
        assert alone.wait() == 2
        assert "is in use by the processes of its shards" in alone.error_and_fix[0]
    refused = warm.start(*made["masks"], out, "--shard", "0/2", "--overwrite")
    assert refused.wait() == 2
    assert "--overwrite cannot be used by shard 0/2" in refused.error


def test_shards_of_other_data_and_shards_that_overlap_are_named(
    tmp_path: Path, made: dict[str, list[object]], warm: Any
) -> None:
    out = tmp_path / "out"
    run_all(warm, [*made["masks"], out], 2)
    record, kept = out / "shards" / "1-of-2.json", (out / "shards" / "1-of-2.json").read_text()
    record.write_text(kept.replace(json.loads(kept)["set_sha256"], "0" * 64))
    with pytest.raises(DataError, match="of other images or tags than the rest: shard 1/2"):
        merge_labels(out, Silent())
    record.write_text(kept)
    first, second = (out / f"journal.{i}-of-2.jsonl" for i in range(2))
    whole = second.read_bytes()
    second.write_bytes(whole + first.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(DataError, match="shard 1/2 overlaps with another"):
        merge_labels(out, Silent())
    second.write_bytes(b"".join(whole.splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match="not the"):
        merge_labels(out, Silent())
    second.write_bytes(whole)
    merge_labels(out, Silent())


def test_words_of_the_option() -> None:
    assert parse_shard("3/4") == parse_shard("3-of-4") == Shard(3, 4)
    assert [*Shard(1, 3).part("abcdefg")] == ["b", "e"]
    assert chosen_shard(None, Place()) is None
    assert chosen_shard(None, Place(rank=1, world=2)) == Shard(1, 2)
    for wrong in ("4/4", "1/0", "a/2", "-1/2", "1", "1/2/3"):
        with pytest.raises(UsageError, match=f"--shard {wrong}"):
            parse_shard(wrong)
    with pytest.raises(UsageError, match="torchrun started 2 processes"):
        chosen_shard("0/2", Place(rank=1, world=2, launcher="torchrun"))
