"""Which split a training takes and is validated on, and that it says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wsss.config import Config, DataSection
from wsss.data.splits import TRAIN_SPLITS, VAL_SPLITS, chosen_split, open_training
from wsss.reporting import Silent


class Remarks(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize(
    ("splits", "chosen"),
    [
        (("train", "valid"), "valid"),
        (("train", "validation"), "validation"),
        (("train", "dev"), "dev"),
        (("train", "Valid"), "Valid"),
        (("train", "VAL"), "VAL"),
        (("train2017", "val2017"), "val2017"),
        (("Valid", "val"), "val"),
        (("dev", "valid"), "valid"),
        (("val2014", "val2017"), None),
        (("train", "test", "holdout"), None),
        (("value", "devil", "validator"), None),
        ((), None),
    ],
)
def test_the_split_to_validate_on(splits: tuple[str, ...], chosen: str | None) -> None:
    assert chosen_split(splits, VAL_SPLITS) == chosen


@pytest.mark.parametrize(
    ("splits", "chosen"),
    [
        (("training", "val"), "training"),
        (("Train", "Val"), "Train"),
        (("train", "train_aug"), "train_aug"),
        (("Train-Aug", "train"), "train"),
        (("Train-Aug", "TRAIN"), "Train-Aug"),
        (("test", "dev"), None),
    ],
)
def test_the_split_to_train_on(splits: tuple[str, ...], chosen: str | None) -> None:
    assert chosen_split(splits, TRAIN_SPLITS) == chosen


@pytest.mark.parametrize(
    ("names", "validated", "said"),
    [
        (("train", "valid"), "valid", "validating on the split 'valid'"),
        (("Training", "Dev"), "Dev", "validating on the split 'Dev'"),
        (
            ("train", "holdout"),
            None,
            "no validation, so no best.pt: no split is called val or valid or validation; there is",
        ),
        (("train", "val"), "val", None),
    ],
)
def test_a_training_says_what_it_chose(
    tmp_path: Path, write_photo: Callable[..., Path], names: tuple[str, str], validated: str | None, said: str | None
) -> None:
    lines = []
    for number, name in enumerate(names):
        write_photo(tmp_path / f"{number}.png", 6 + number)
        lines.append(f"{number}.png,cat,{name}\n")
    (tmp_path / "tags.csv").write_text("image,labels,split\n" + "".join(lines))
    remarks = Remarks()
    train, val = open_training(Config(data=DataSection(root=tmp_path)), remarks)
    assert (train.split, val and val.split) == (names[0], validated)
    assert "no image of split" in remarks.said[1]  # the only class is in every image
    assert [text.startswith(said) for text in remarks.said[2:]] == [True] if said else len(remarks.said) == 2
