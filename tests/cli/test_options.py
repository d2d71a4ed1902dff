"""Options derived from config keys: their types, names and help, and the values that the command gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from wsss.cli.main import app
from wsss.cli.options import Given, configured
from wsss.cli.running import refuse_together
from wsss.config import known_keys
from wsss.errors import UsageError

Run = Callable[..., Given]


@pytest.fixture
def run() -> Run:
    """Call a small command and return the `Given` that it gets."""
    got: list[Given] = []

    @configured(
        *("name", "data.root", "config", "assignments", "maps.scales", "maps.flip", "maps.method", "run.seed"),
        *("classify.lr", "split", "many"),
        split="data.train_split",
    )
    def command(
        given: Given,
        name: Annotated[str, typer.Argument()],
        many: Annotated[bool, typer.Option("--many")] = False,
    ) -> None:
        assert (name, many) == ("x", True)
        got.append(given)

    small = typer.Typer()
    small.command()(command)

    def call(*words: str) -> Given:
        done = CliRunner().invoke(small, ["x", "--many", *words])
        assert done.exit_code == 0, done.output
        return got.pop()

    return call


def test_nothing_given(run: Run) -> None:
    given = run()
    assert (given.config, given.assignments) == ([], [])
    assert set(given.flags.values()) == {None}
    assert given.names() == []


def test_values_have_the_types_of_their_keys(run: Run) -> None:
    words = ("--data", "photos", "--scales", "224, 320", "--no-flip", "--method", "cam", "--seed", "3", "--lr", "0.5")
    given = run(*words, "--split", "mine", "-c", "demo", "--set", "run.amp=bf16", "--set", "run.workers=0")
    assert given.flags == {
        "data.root": Path("photos"),
        "maps.scales": ["224", "320"],
        "maps.flip": False,
        "maps.method": "cam",
        "run.seed": 3,
        "classify.lr": 0.5,
        "data.train_split": "mine",
    }
    assert given.names() == [*given.flags, "--config", "--set"]
    config = given.resolve()
    assert (config.maps.scales, config.maps.flip, config.run.amp, config.run.workers) == ((224, 320), False, "bf16", 0)


def test_the_config_refuses_bad_values_together(run: Run) -> None:
    with pytest.raises(UsageError) as caught:
        run("--scales", "a,-1", "--method", "getma").resolve()
    for key in ("'maps.scales.0'", "'maps.scales.1'", "'maps.method'"):
        assert key in caught.value.problem


def test_options_that_another_makes_useless(run: Run) -> None:
    given = run("--seed", "3")
    refuse_together("--init", None, given, "run.seed")
    refuse_together("--init", Path("run"), given, "classify.lr")
    with pytest.raises(UsageError, match="--init and --seed exclude each other"):
        refuse_together("--init", Path("run"), given, "classify.lr", "run.seed")


def test_help_of_an_option_is_the_description_of_its_key() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {option.opts[0]: option.help for option in commands["make-pseudo"].params if hasattr(option, "help")}
    assert options["--crf"] == r"Refine with the dense CRF (wsss\[crf])."
    assert options["--split"] == "Split to train on or to label."
    for command in ("train-cls", "train-seg", "make-pseudo", "predict", "demo"):
        assert all(option.help for option in commands[command].params if hasattr(option, "help"))


def test_a_key_that_does_not_exist() -> None:
    assert "maps.metod" not in known_keys()
    with pytest.raises(KeyError):
        configured("maps.metod")(lambda given: None)
