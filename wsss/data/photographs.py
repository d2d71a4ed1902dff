"""The files of a folder that are photographs, and what was left out."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wsss.data.findings import BadData, Finding, Note, Place, refuse
from wsss.data.images import IMAGE_SUFFIXES, MADE, MANIFEST, sniffed_suffix, split_suffix
from wsss.data.parts import Part
from wsss.data.walking import Reason, Tree, is_file, machine_name, walk

OTHER_IMAGES = frozenset(
    {
        *(".avif", ".gif", ".heic", ".heics", ".heif", ".hif", ".j2k", ".jp2", ".jxl", ".svg", ".tga"),
        *(".pbm", ".pgm", ".ppm", ".pnm", ".exr", ".hdr", ".ico", ".psd", ".xcf", ".dcm", ".eps", ".pcx"),
        *(".npy", ".nii", ".svs", ".ndpi", ".mp4", ".avi", ".mov", ".mkv", ".webm"),
        *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"),
    }
)
"""Endings of pictures, volumes and films that no reader reads; in lower case."""
TEXTS = (
    ".txt",
    ".csv",
    ".tsv",
    ".json",
    ".jsonl",
    ".xml",
    ".yaml",
    ".yml",
    ".md",
    ".html",
    ".log",
    ".py",
    ".tar",
    ".npz",
)
"""Endings of files that are not asked whether they hold an image."""
MOST_ASKED = 1000
"""Files of other endings that are."""
CONVERT = "convert to PNG or JPEG what is to be read"
"""What to do with pictures of ``OTHER_IMAGES``."""
INSTALL = dict.fromkeys((".heic", ".heif", ".hif"), "pip install 'wsss[heif]', or ")
"""What reads some of them."""
SAID: dict[Reason, str] = {
    "by machines": "made by a disk station or a program beside the photos; {} left out",
    "circle": "a link back to a folder that it lies in; {} left out",
    "linked too often": "reached through very many links; {} left out from then on",
    "link to nothing": "a link that leads to nothing, as when a disk is not mounted; {} left out",
}
"""What is said of folders and files that are left out, by the reason; the others are what the user expects."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Photographs:
    """The images on disk of a data folder.

    Attributes:
        folder: where they lie.
        files: their paths below it by name, sorted.
        tree: all that lies below the folder, with what was left out.
        others: paths of files that are no images, or whose name another image has.
        parts: where those lie that are members of shards, by name.
    """

    folder: Path
    files: dict[str, str]
    tree: Tree = field(default_factory=Tree)
    others: frozenset[str] = frozenset()
    parts: Mapping[str, Part] = field(default_factory=dict)

    def left_out(self) -> dict[str, int]:
        """How many files and folders are no images or are left out, by the reason."""
        counts: Counter[str] = Counter(self.tree.left_out.values())
        counts.update("named as another" if split_suffix(file)[1] else "of another ending" for file in self.others)
        return dict(counts)


def list_images(folder: Path, skip: Collection[str] = (), *, note: Note = refuse) -> dict[str, str]:
    """The files of ``find_images``: path below the folder by name, sorted, "/"-separated."""
    return find_images(folder, skip, note=note).files


def find_images(folder: Path, skip: Collection[str] = (), *, note: Note = refuse) -> Photographs:
    """Every image below a folder, without the label maps that this program wrote; no image is opened.

    Args:
        folder: where to look; links to other folders are followed.
        skip: names of folders directly in it that are left out. Hidden files and folders always are, and those that
            disk stations and other programs make for themselves.
        note: called for two files that share a name, for folders that cannot be listed and for what is left out; if
            it returns, the first file is kept.

    Returns:
        The images; their names are their paths below the folder without their suffixes.

    Raises:
        DataError: two files share a name or a folder cannot be listed, and ``note`` raises.
    """

    def prune(below: str, files: Collection[str]) -> Mapping[str, Reason]:
        made = MANIFEST in files and is_ours(folder / below / MANIFEST)
        return {
            **({} if below else dict.fromkeys(skip, "no photographs")),
            **(dict.fromkeys(MADE, "made here") if made else {}),
        }

    tree = walk(folder, prune, note=note)
    found: dict[str, str] = {}
    others = []
    for file in tree.files:
        name, suffix = split_suffix(file)
        if not suffix and "." not in file.rpartition("/")[2]:
            suffix = sniffed_suffix(folder / file)
        if suffix and name not in found:
            found[name] = file
            continue
        others.append(file)
        if suffix:
            note(_same_name(folder, found[name], file))
    for error in _left_out(folder, tree, others):
        note(error)
    return Photographs(folder=folder, files=dict(sorted(found.items())), tree=tree, others=frozenset(others))


def all_images(folder: Path, note: Note = refuse) -> Photographs:
    """``find_images`` of a whole data folder: for formats that keep nothing but photographs as images."""
    return find_images(folder, note=note)


def _left_out(folder: Path, tree: Tree, others: list[str]) -> Iterator[BadData]:
    """Warnings about what a user may miss among the images, one for all that have the same reason and kind of name."""
    alike: dict[tuple[Reason, str], list[str]] = defaultdict(list)
    for path, reason in tree.left_out.items():
        if reason in SAID:
            alike[reason, machine_name(path.rsplit("/", 1)[-1]) if reason == "by machines" else path].append(path)
    for (reason, _), paths in alike.items():
        kind = "link-lost" if reason == "link to nothing" else "folder-left-out"
        what = SAID[reason].format("it is" if len(paths) == 1 else f"{len(paths)} of them are")
        yield _remark(folder, kind, paths[0], what)
    pictures: dict[str, list[str]] = defaultdict(list)
    for file in others:
        ending = os.path.splitext(file)[1].lower()  # noqa: PTH122 (speed)
        if ending in OTHER_IMAGES and ending not in IMAGE_SUFFIXES:
            pictures[ending].append(file)
    asked = [file for file in others if not file.lower().endswith((*TEXTS, *OTHER_IMAGES, *IMAGE_SUFFIXES))]
    hidden = [file for file in asked[:MOST_ASKED] if sniffed_suffix(folder / file)]
    if hidden:
        count = "1 file holds an image" if len(hidden) == 1 else f"{len(hidden)} files hold images"
        what = (
            f"{count} but {'has' if len(hidden) == 1 else 'have'} another ending: not read; rename what is to be read"
        )
        yield _remark(folder, "file-ignored", hidden[0], what)
    for ending, files in sorted(pictures.items()):
        mend = f"{INSTALL.get(ending, '')}{CONVERT}"
        what = f"{'1 file' if len(files) == 1 else f'{len(files)} files'} ending in {ending}: not read; {mend}"
        yield _remark(folder, "file-ignored", files[0], what)


def _remark(folder: Path, kind: str, path: str, what: str) -> BadData:
    """A remark about one path below a folder, or about several that are like it."""
    return BadData.at(kind, folder / path, what, f"ls -la {(folder / path).parent}")


def is_ours(manifest: Path) -> bool:
    """Whether there is a manifest and this program wrote it; other programs use the same file name."""
    if not is_file(manifest):  # reading a pipe would block
        return False
    try:
        content = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "wsss" in content


def _same_name(folder: Path, first: str, second: str) -> BadData:
    """The error for two images whose outputs would overwrite each other."""
    what = f"{first} and {second} differ only in their suffix, and outputs are named without it"
    fix = f"rename or move one of them (masks belong in a folder called masks): {folder / second}"
    return BadData(f"{folder}: {what}", fix, [Finding("name-twice", Place(folder / second), what)])
