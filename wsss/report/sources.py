"""What the page compares: runs, and folders of label maps with their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsss.data.dataset import open_data
from wsss.data.findings import refuse, telling
from wsss.data.images import MANIFEST
from wsss.data.records import Record, TaggedSet
from wsss.errors import DataError, WsssError
from wsss.evaluation.report import Report
from wsss.inference.evaluate import ScoredImage, evaluate_labels
from wsss.outputs.manifest import made_in, read_manifest
from wsss.outputs.run import FACTS, read_facts
from wsss.reading import Reading
from wsss.report.curves import Curves, read_curves
from wsss.reporting import Reporter
from wsss.training.rounds import LABELS, TEACHER


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One run or folder of the page.

    Attributes:
        name: its path as it was given.
        facts: what is known of its making, by name.
        curves: of a run.
        report: of label maps that were scored.
        remark: why something is missing; empty where nothing is.
    """

    name: str
    facts: dict[str, str]
    curves: list[Curves] = field(default_factory=list)
    report: Report | None = None
    remark: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """What was asked for: ``runs``, and folders of ``labels``; of these the ``given`` ones are no part of a run."""

    runs: list[Path]
    labels: list[Path]
    given: list[Path]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Places:
        """Tell runs from folders of label maps; those that the rounds of a run learnt from are found in it.

        Raises:
            DataError: a path is neither.
        """
        runs, labels, given = [], [], []
        for path in paths:
            if (path / FACTS).is_file():
                runs.append(path)
                labels += rounds_of(path)
            elif (made_in(path) / MANIFEST).is_file():
                labels.append(made_in(path))
                given.append(made_in(path))
            else:
                raise _neither(path)
        return cls(runs=list(dict.fromkeys(runs)), labels=list(dict.fromkeys(labels)), given=given)


def rounds_of(run: Path) -> list[Path]:
    """The folders of label maps that the rounds of a run made for the next one, the first round first."""
    found = []
    while (run / FACTS).is_file():
        found += [run / LABELS] if (run / LABELS / MANIFEST).is_file() else []
        run = run / TEACHER
    return found[::-1]


def read_run(path: Path, reporter: Reporter) -> Source:
    """The facts and curves of a run.

    Raises:
        DataError, DiskError: a file cannot be read.
    """
    facts, curves = read_facts(path), read_curves(path)
    broken = sum(one.broken for one in curves)
    remarks = [] if curves else ["it has no metrics.jsonl yet"]
    remarks += [f"{broken} lines of metrics.jsonl cannot be read and are left out"] if broken else []
    for remark in remarks:
        reporter.say(f"{path}: {remark}")
    shown = {
        "kind": "run",
        "started": facts.get("started"),
        "classes": ", ".join(map(str, facts.get("classes", []))),
        "trained on": f"{facts.get('split')}, {facts.get('images')} images",
        "validated on": facts.get("val_split") or "nothing",
    }
    return Source(name=str(path), facts=_words(shown), curves=curves, remark="; ".join(remarks))


@dataclass(frozen=True, kw_only=True, slots=True)
class Scoring:
    """How label maps are scored.

    Attributes:
        data: where their data lie; None where the manifests say.
        reading: how the data folder is read.
        score: whether masks are opened at all.
    """

    data: Path | None = None
    reading: Reading | None = None
    score: bool = True

    def read(
        self,
        root: Path,
        reporter: Reporter,
        *,
        strict: bool,
        on_records: Callable[[Sequence[Record]], None],
        on_image: Callable[[ScoredImage], None],
    ) -> Source:
        """The facts of a folder of label maps, and its scores where its data have masks.

        Args:
            root: the folder.
            reporter: progress and remarks.
            strict: where the data are named, raise what keeps it from being scored.
            on_records: gets the records of the split, where the data are found.
            on_image: gets each image that is scored.

        Raises:
            DataError: the manifest is broken; or ``strict``.
        """
        manifest = read_manifest(root)
        choices = manifest.get("choices")
        told = choices.get("data") if isinstance(choices, dict) else None
        where = self.data or (Path(told) if isinstance(told, str) else None)
        report, remark = None, "" if self.score else "not scored: it was not asked for"
        try:
            tagged = self._open(root, where, manifest.get("split"), reporter)
            on_records(tagged.records)
            if self.score:
                report = _scored(root, tagged, reporter, on_image)
        except WsssError as error:
            if strict and self.score and self.data is not None:
                raise
            if self.score:
                remark = f"not scored: {error.problem} (--data DIR names the data)"
                reporter.say(f"{root}: {remark}")
        shown = {name: manifest.get(name) for name in ("kind", "method", "backbone", "scales", "flip", "crf")}
        shown |= {"supervision": " + ".join(map(str, manifest.get("supervision") or ["unknown"])), "data": where}
        return Source(name=str(root), facts=_words(shown), report=report, remark=remark)

    def _open(self, root: Path, data: Path | None, split: Any, reporter: Reporter) -> TaggedSet:
        if data is None or not isinstance(split, str):
            raise DataError(f"{root / MANIFEST} names no data and split with masks", "--data DIR")
        note = telling(reporter.say) if self.score else refuse
        return open_data(data, split=split, reading=self.reading, need_tags=False, note=note)


def _scored(root: Path, tagged: TaggedSet, reporter: Reporter, on_image: Callable[[ScoredImage], None]) -> Report:
    reporter.begin(f"scoring {root}", len(tagged))
    return evaluate_labels(
        root, tagged, errors=True, sizes=True, on_progress=lambda done, total: reporter.advance(), on_image=on_image
    )


def _neither(path: Path) -> DataError:
    what = f"neither a run ({FACTS}) nor a folder of label maps ({MANIFEST})"
    what = what if path.is_dir() else "no such folder"
    return DataError(f"{path}: {what}", "wsss report RUN  # or a folder of make-pseudo or predict")


def _words(values: dict[str, Any]) -> dict[str, str]:
    """What is known, as text: lists joined, switches on or off."""
    words = {}
    for name, value in values.items():
        if isinstance(value, bool):
            words[name] = "on" if value else "off"
        elif isinstance(value, list):
            words[name] = " ".join(map(str, value))
        elif value is not None:
            words[name] = str(value)
    return words
