from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsss.data import columns
from wsss.data.columns import Lists, Texts

NAMES = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=()), min_size=1), max_size=20)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BLOCK", 3)


@given(NAMES)
def test_texts_come_back_as_they_were(names: list[str]) -> None:
    texts = Texts.of(names)
    assert list(texts) == names
    assert [texts[index] for index in range(-len(names), 0)] == names
    assert list(texts[::2]) == names[::2]
    assert texts == pickle.loads(pickle.dumps(texts))
    with pytest.raises(IndexError):
        texts[len(names)]


@given(NAMES.filter(bool), st.data())
def test_some_texts_are_taken(names: list[str], data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, len(names) - 1)))
    assert list(Texts.of(names).take(np.array(index, np.int64))) == [names[k] for k in index]


@given(NAMES, NAMES)
def test_equal_texts_alone_have_equal_hashes(first: list[str], second: list[str]) -> None:
    hashes = [*Texts.of(first).hashes().tolist(), *Texts.of(second).hashes().tolist()]
    assert len(set(hashes)) == len({*first, *second})
    assert (Texts.of(first) == Texts.of(second)) == (first == second)


def test_a_hash_is_the_same_on_every_machine() -> None:
    total = sum(columns.FACTOR**j * (byte + 1) for j, byte in enumerate(b"street/0001.jpg")) % 2**64
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        total = (total ^ (total >> 33)) * factor % 2**64
    texts = Texts.of(["a.jpg", "street/0001.jpg", "b.jpg", "street/0001.jpg", "c.jpg"])
    assert texts.hashes()[[1, 3]].tolist() == [total ^ (total >> 33)] * 2


def test_names_like_those_of_data_sets_do_not_collide() -> None:
    names = Texts.of(f"{a}/{b:04}.{c}" for a in ("train", "val", "niart") for b in range(9999) for c in ("jpg", "png"))
    assert len(np.unique(names.hashes())) == len(names)


@given(NAMES)
def test_parts_share_the_block(names: list[str]) -> None:
    texts = Texts.of(f"images/{name}.jpg" for name in names)
    parts = texts.inside(7, np.array([len(name.encode("utf-8", "surrogatepass")) for name in names], np.int64))
    assert list(parts) == names
    assert parts.blob is texts.blob
    assert parts == Texts.of(names)
    assert parts.hashes().tolist() == Texts.of(names).hashes().tolist()


@given(st.lists(st.lists(st.integers(0, 253), max_size=4).map(tuple), min_size=1), st.data())
def test_lists_come_back_as_they_were(lists: list[tuple[int, ...]], data: st.DataObject) -> None:
    column = Lists.of(lists)
    assert [column[index] for index in range(len(lists))] == lists
    assert column.lengths().tolist() == [len(one) for one in lists]
    index = data.draw(st.lists(st.integers(0, len(lists) - 1)))
    assert column.take(np.array(index, np.int64)) == Lists.of([lists[k] for k in index])
