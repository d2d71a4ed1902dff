"""The pages of errors and findings: one for each kind, each with its parts, and messages that name them."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wsss.data.findings import KINDS
from wsss.errors import UsageError, WsssError
from wsss.explain.pages import PARTS, Page, page_of, pages


def kinds_of_errors(error: type[WsssError] = WsssError) -> Iterator[str]:
    for one in error.__subclasses__():
        yield one.kind
        yield from kinds_of_errors(one)


def test_every_kind_has_a_page_and_every_page_a_kind() -> None:
    for module in (
        "wsss.files",
        "wsss.data.loading",
        "wsss.training.bad_loss",
        "wsss.training.verify",
        "wsss.training.twice",
    ):  # where errors of their own are
        importlib.import_module(module)
    assert set(pages()) == {*KINDS, *kinds_of_errors(), "bug"}


def test_every_class_of_errors_is_looked_at() -> None:
    """Modules that define errors with a kind of their own are those that the test above imports."""
    root = Path(__file__).parents[2] / "wsss"
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r'^    kind = "', path.read_text("utf-8"), re.M)
    }
    assert found == {
        "errors.py",
        "files.py",
        "data/loading.py",
        "outputs/verify.py",
        "training/bad_loss.py",
        "training/twice.py",
    }


@pytest.mark.parametrize("page", pages().values(), ids=lambda page: page.kind)
def test_a_page_says_what_why_example_and_mend(page: Page) -> None:
    assert page.what.endswith(".")
    assert re.findall(r"^- (\w+): .", page.text, flags=re.MULTILINE) == [*PARTS]


def test_an_unknown_kind_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean tag-unknown") as refused:
        page_of("tag-unknwon")
    assert refused.value.fix == "wsss explain tag-unknown"
    with pytest.raises(UsageError) as refused:
        page_of("zzzzzz")
    assert refused.value.fix == "wsss explain  # lists all"


def test_the_command_prints_a_page(wsss: Callable[..., Any]) -> None:
    done = wsss("explain", "mask-size")
    assert (done.status, done.err) == (0, "")
    assert done.out == f"mask-size (Masks and saliency maps)\n\n{pages()['mask-size'].text}\n"
    listed = wsss("explain").out.splitlines()
    assert [line.partition("\t")[0] for line in listed] == [*pages()]
    assert json.loads(wsss("explain", "bug", "--json").out)[0]["kind"] == "bug"


def test_an_error_names_its_page(wsss: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("image,labels\na.jpg,cat\na.jpg,dog\n")
    (tmp_path / "a.jpg").touch()
    done = wsss("data", "info", tmp_path)
    assert done.status == 3
    assert done.err.splitlines()[-1] == "more:  wsss explain image-twice"
    assert "listed before" in done.error()[0]
    event = json.loads(wsss("data", "info", tmp_path, "--log-json").err.splitlines()[-1])
    assert (event["event"], event["kind"]) == ("error", "image-twice")
    assert not wsss("config", "check", "nowhere.yaml").err.splitlines()[-1].startswith("more:")
