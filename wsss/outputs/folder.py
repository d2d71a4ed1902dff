"""A folder of label maps that this process writes to.

One process at a time writes there (``lock.py``), or several, each the share of its shard (``shards.py``). A folder
that was interrupted, or whose set of images has grown, is completed: images whose journal line says that they were made
from the same bytes and tags by the same settings are skipped. Whatever is made again loses all of its old files first,
so that nothing stale is left beside new files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsss.config import Config, to_yaml
from wsss.data.facts import image_digest
from wsss.data.findings import BadData
from wsss.data.images import MANIFEST
from wsss.data.masks import IGNORE_INDEX, count_indices, encode_mask, read_mask
from wsss.data.photographs import is_ours
from wsss.data.records import Record, counted
from wsss.errors import UsageError
from wsss.files import disk_errors, files_below, sweep, write_whole
from wsss.outputs.journal import JOURNAL, JOURNALS, Entry, Journal, read_journal, read_journals
from wsss.outputs.lock import content
from wsss.outputs.manifest import is_complete, read_manifest, settings_digest, write_manifest
from wsss.outputs.shards import Division, held_together, journal_name, write_record
from wsss.reporting import Reporter, first_few
from wsss.stopping import StopRequest, stop_requests

SUFFIXES = {"labels": ".png", "scores": ".npz", "overlays": ".jpg"}
"""Ending of the file of an image in each part of the folder."""
PNG_END = b"IEND\xaeB`\x82"
"""Last bytes of every whole PNG file."""
WHERE_USED = ("refiner_sha256",)
"""Settings that a manifest has only where they are used: a folder made with one goes on with no other and with none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What the files of an image are made from; see ``Entry``."""

    name: str
    origin: str
    digest: str
    tags: tuple[int, ...]

    @classmethod
    def of(cls, record: Record, *layers: Path | None) -> Source:
        """Of a record and of its files NAME.png in other folders that are read (saliency maps)."""
        files = [folder / f"{record.name}.png" for folder in layers if folder is not None]
        parts = [record.digest or image_digest(record.read()), *(image_digest(file.read_bytes()) for file in files)]
        origin = str(record.image.absolute())
        return cls(name=record.name, origin=origin, digest="+".join(parts), tags=record.tags)


class LabelFolder:
    """An output folder that is held; `held_folder` makes it.

    Attributes:
        out: the folder.
        stop: the request set by a signal; call ``stop.leave_if_asked`` after each image.
    """

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, Any],
        config: Config,
        journal: Journal,
        stop: StopRequest,
        say: Callable[[str], None],
        choices: Mapping[str, Any] | None = None,
        division: Division | None = None,
    ) -> None:
        self.out = out
        self.stop = stop
        self._settings = settings
        self._config = config
        self._choices = choices
        self._digest = settings_digest(settings)
        self._journal = journal
        self._say = say
        self._division = division
        self._entries: dict[str, Entry] = {}
        self._kept: dict[str, Entry] = {}
        self._edited: set[str] = set()

    def begin(
        self,
        sources: Sequence[Source],
        reporter: Reporter,
        *,
        parts: Mapping[str, Collection[str]] | None = None,
        overwrite: bool,
    ) -> frozenset[str]:
        """Decide which images remain, and delete all files of those that are made again.

        An image that only lacks a part keeps its other files, and `write` adds the part.

        Args:
            sources: all images of the set, or of the share of this shard.
            reporter: gets a message about images that are made again and why.
            parts: names of the images that must have a file in "scores" or "overlays" too.
            overwrite: make every image of the set again.

        Returns:
            Names of the images that are to be made.

        Raises:
            UsageError: the folder holds label maps of other images of the same names.
        """
        self._read_entries([source.name for source in sources])
        known = {source.name: self._entries[source.name] for source in sources if source.name in self._entries}
        changed = [source for source in sources if source.name in known and self._differs(known[source.name], source)]
        if not overwrite:
            self._refuse_others(known, changed)
        if changed and not overwrite:
            names = first_few([source.name for source in changed])
            count = "1 image or its" if len(changed) == 1 else f"{len(changed)} images or their"
            reporter.say(f"{count} tags have changed ({names}); made again")
        again = [source.name for source in sources if overwrite or not self._is_valid(source)]
        damaged = [name for name in again if name in self._entries and not overwrite and self._is_damaged(name)]
        if damaged:
            reporter.say(
                f"files of {counted(len(damaged), 'image')} are gone or damaged ({first_few(damaged)}); made again"
            )
        if self._edited:
            maps, names = counted(len(self._edited), "label map"), first_few(sorted(self._edited))
            reporter.say(f"changed since they were made, and kept: {maps} ({names})")
        self._forget(again)
        lacking = [source.name for source in sources if source.name in self._entries]
        lacking = [name for name in lacking if self._lacks(name, parts or {})]
        self._kept = {name: self._entries[name] for name in lacking}
        self._forget_other_settings(reporter)
        self._remark_on_more(sources, reporter)
        todo = frozenset(again + lacking)
        # After that no old label map is left that the manifest could claim.
        if todo or self._division is None or not is_complete(self.out):
            write_manifest(self.out, self._settings, {}, self._choices)
        write_whole(self.out / "config.yaml", to_yaml(self._config))
        self._record_shard(sources, done=False)
        return todo

    def write(
        self,
        source: Source,
        label_HW: NDArray[np.uint8],
        *,
        scores: bytes | None = None,
        overlay: bytes | None = None,
        certainty: Mapping[int, float] | None = None,
    ) -> None:
        """Write the files of an image, then its journal line. Safe from several threads.

        Args:
            source: what they were made from.
            label_HW: class indices.
            scores: content of its .npz file.
            overlay: content of its .jpg file.
            certainty: of each class; see ``Entry``.

        Raises:
            DiskError: a file cannot be written.
        """
        kept = self._kept.get(source.name)
        contents = {"scores": scores, "overlays": overlay, "labels": None if kept else encode_mask(label_HW)}
        files = dict(kept.files) if kept else {}
        for part, written in contents.items():
            path = self.path(part, source.name)
            name = path.relative_to(self.out).as_posix()
            if written is not None and name not in files:
                write_whole(path, written)
                files[name] = hashlib.sha256(written).hexdigest()
        entry = Entry(
            name=source.name,
            origin=source.origin,
            source=source.digest,
            tags=source.tags,
            settings=self._digest,
            pixels=kept.pixels if kept else count_indices(label_HW),
            files=files,
            certainty=kept.certainty if kept else dict(certainty or {}),
        )
        self._journal.add(entry)
        self._entries[source.name] = entry

    def complete(self, sources: Sequence[Source]) -> dict[str, int]:
        """Write the manifest of a complete folder, or the record of a shard whose share is complete.

        Returns:
            Totals: images, and pixels of background, foreground and ignored in all of them.
        """
        counts = totals(self._entries[source.name] for source in sources)
        if self._division is None:
            write_manifest(self.out, self._settings, counts, self._choices)
        else:
            self._journal.sync()
            self._record_shard(sources, done=True)
        return counts

    def path(self, part: str, name: str) -> Path:
        """Where a file of an image lies: part "labels", "scores" or "overlays"."""
        return self.out / part / f"{name}{SUFFIXES[part]}"

    def _read_entries(self, names: Sequence[str]) -> None:
        """Read the journals. That of a shard gets the entries of its share, and of no other image."""
        if self._division is None:
            self._entries = read_journal(self.out, self._say)
            return
        mine = self.out / journal_name(self._division.shard)
        share = set(names)
        self._entries = read_journals([self.out / JOURNAL, mine], self._say, share)
        recorded = read_journals([mine])
        self._journal.remove(name for name in recorded if name not in share)  # the set was another one then
        for name, entry in self._entries.items():
            if name not in recorded:
                self._journal.add(entry)

    def _record_shard(self, sources: Sequence[Source], *, done: bool) -> None:
        if self._division is not None:
            names = [source.name for source in sources]
            record = self._division.record(self._digest, names, done=done, choices=self._choices or {})
            write_record(self.out, record)

    def _differs(self, entry: Entry, source: Source) -> bool:
        return entry.source != source.digest or entry.tags != source.tags

    def _is_valid(self, source: Source) -> bool:
        """Whether an image has files, and all that its journal line names, and these settings made them of it."""
        entry = self._entries.get(source.name)
        return (
            entry is not None
            and entry.settings == self._digest
            and not self._differs(entry, source)
            and all(self._is_whole(path, digest) for path, digest in entry.files.items())
        )

    def _is_whole(self, path: str, digest: str) -> bool:
        """Whether a file is as it was written, or a label map that somebody corrected: a readable one."""
        try:
            content = (self.out / path).read_bytes()
        except OSError:
            return False
        if hashlib.sha256(content).hexdigest() == digest:
            return True
        if not path.startswith("labels/") or not content.endswith(PNG_END):
            return False
        try:
            read_mask(self.out / path)
        except BadData:
            return False
        self._edited.add(path)
        return True

    def _is_damaged(self, name: str) -> bool:
        """Whether these settings made its files, and one of them is gone or broken."""
        entry = self._entries[name]
        return entry.settings == self._digest and not all(map(self._is_whole, *zip(*entry.files.items(), strict=True)))

    def _lacks(self, name: str, parts: Mapping[str, Collection[str]]) -> bool:
        """Whether a part that is wanted is missing."""
        files = self._entries[name].files
        wanted = ["labels", *(part for part, names in parts.items() if name in names)]
        return not all(self.path(part, name).relative_to(self.out).as_posix() in files for part in wanted)

    def _refuse_others(self, known: Mapping[str, Entry], changed: Sequence[Source]) -> None:
        """Refuse images of another folder that happen to have the same names.

        A set that was moved and changed in part is accepted: at least half of its images still have their bytes. Their
        tags and other layers may be new.
        """
        elsewhere = [source for source in changed if _is_another(known[source.name], source)]
        if 2 * len(elsewhere) > len(known):
            first = elsewhere[0]
            raise UsageError(
                f"{self.out} holds label maps of other images of the same names: '{first.name}' was"
                f" {known[first.name].origin}, now it is {first.origin}",
                "choose another -o, or add --overwrite to replace them",
            )

    def _forget(self, names: Iterable[str]) -> None:
        """Take images out of the journal, then delete every file there may be of them."""
        names = list(names)
        self._journal.remove(name for name in names if self._entries.pop(name, None) is not None)
        for name in names:
            for part in SUFFIXES:
                path = self.path(part, name)
                with disk_errors(path):
                    path.unlink(missing_ok=True)

    def _forget_other_settings(self, reporter: Reporter) -> None:
        """Remove files of images outside the set that other settings made: the new manifest would claim them."""
        others = [name for name, entry in self._entries.items() if entry.settings != self._digest]
        if others:
            reporter.say(f"{len(others)} label maps of other settings removed ({first_few(others)})")
            self._forget(others)

    def _remark_on_more(self, sources: Sequence[Source], reporter: Reporter) -> None:
        """Say how many label maps the folder holds of images outside the set; they stay, and are not counted."""
        names = {source.name for source in sources}
        more = [name for name in self._entries if name not in names]
        if more:
            reporter.say(
                f"{self.out} holds {len(more)} more label maps, of images that are not in this set"
                f" ({first_few(more)}); they stay, and are not counted"
            )


@contextmanager
def held_folder(
    out: Path,
    settings: Mapping[str, Any],
    config: Config,
    reporter: Reporter,
    *,
    overwrite: bool,
    choices: Mapping[str, Any] | None = None,
    division: Division | None = None,
) -> Iterator[LabelFolder]:
    """Hold an output folder: make it, or take one that the same settings made; lock it; catch the signals to stop.

    Args:
        out: the folder.
        settings: all that decides its content except the images; plain values.
        config: written beside it.
        reporter: of remarks.
        overwrite: whatever made the folder.
        choices: what the command chose by itself (`choices.py`); kept in the manifest, never compared.
        division: the shard to make, where it is not the whole.

    Raises:
        UsageError: the folder is in use, by something else or by another process, or is divided into other shards.
        DiskError: it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, expected a folder", "-o FOLDER")
    shard = None if division is None else division.shard
    if shard is not None and overwrite:
        raise UsageError(
            f"--overwrite cannot be used by shard {shard}: it would replace what other shards have made",
            f"rm -r {out}  # then start all shards without --overwrite",
        )
    with held_together(out, shard, reporter):
        if content(out) and not overwrite:
            check_same(out, settings)
            if not any(out.glob(JOURNALS)) and any(file.suffix == ".png" for file in files_below(out / "labels")):
                reporter.say(f"{out} has no journal (an earlier version made it): its label maps are made again")
        if overwrite:
            _remove_unrecorded(out, reporter)
            with disk_errors(out / MANIFEST):  # until no old label map can pass as one of the new settings
                (out / MANIFEST).unlink(missing_ok=True)
        if shard is None:
            sweep(out)
        if not overwrite and not (out / MANIFEST).is_file():
            write_manifest(out, settings, {}, choices)  # first: without it the folder counts as one of another program
        with disk_errors(out / "labels"):
            (out / "labels").mkdir(exist_ok=True)
        name = JOURNAL if shard is None else journal_name(shard)
        with Journal(out / name) as journal, stop_requests() as stop:
            yield LabelFolder(out, settings, config, journal, stop, reporter.say, choices, division)


def totals(entries: Iterable[Entry]) -> dict[str, int]:
    """Number of images, and pixels of background, foreground and ignored in all of them."""
    counts = {"images": 0, "background": 0, "foreground": 0, "ignored": 0}
    kinds = {0: "background", IGNORE_INDEX: "ignored"}
    for entry in entries:
        counts["images"] += 1
        for index, pixels in entry.pixels.items():
            counts[kinds.get(index, "foreground")] += pixels
    return counts


def _is_another(entry: Entry, source: Source) -> bool:
    """Whether the image has other bytes than the one of its name that was read before, and lies elsewhere."""
    return entry.image != source.digest.partition("+")[0] and entry.origin != source.origin


def _remove_unrecorded(out: Path, reporter: Reporter) -> None:
    """Remove what this program wrote without a journal line: an earlier version, or a process that was killed then.

    The new manifest would claim these files, and nothing says which images they belong to. In a folder without a
    manifest of this program nothing is removed.
    """
    if not is_ours(out / MANIFEST):
        return
    recorded = {path for entry in read_journal(out).values() for path in entry.files}
    found = (path for part in SUFFIXES for path in files_below(out / part) if path.suffix == SUFFIXES[part])
    unrecorded = [path for path in found if path.relative_to(out).as_posix() not in recorded]
    for path in unrecorded:
        with disk_errors(path):
            path.unlink(missing_ok=True)
    if unrecorded:
        names = first_few([path.relative_to(out).as_posix() for path in unrecorded])
        reporter.say(f"{len(unrecorded)} files without a line in the journal removed ({names})")


def check_same(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that this program or these settings did not make."""
    if not (out / MANIFEST).is_file():
        raise UsageError(f"{out} is in use: it holds other files", "choose another -o, or add --overwrite")
    before = read_manifest(out)
    plain = json.loads(json.dumps(settings))
    differing = [key for key in (*WHERE_USED, *plain) if before.get(key) != plain.get(key)]
    if differing:
        shown = ", ".join(
            f"{key} (was {_short(before.get(key))}, now {_short(plain.get(key))})"
            for key in dict.fromkeys(differing[:3])
        )
        raise UsageError(f"{out} was made with other settings: {shown}", "choose another -o, or add --overwrite")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:21]}..."
