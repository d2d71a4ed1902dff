"""The run that a training goes on from (``--init``): what of it is taken, and what does not fit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from wsss.config import Config
from wsss.data.findings import BadData
from wsss.data.records import TaggedSet
from wsss.data.splits import open_training
from wsss.errors import DataError, UsageError
from wsss.inference.settings import remark_on_model
from wsss.models.checkpoint import load_network
from wsss.models.network import Network
from wsss.reporting import Reporter, first_few
from wsss.sections import EditSection
from wsss.training.head import mode_of


@dataclass(frozen=True, slots=True)
class Initial:
    """The network of a run, and the settings that it was trained with.

    Attributes:
        run: the folder or checkpoint file.
        network: of its last checkpoint.
        config: in that checkpoint.
        option: of the command line that names it.
    """

    option: ClassVar[str] = "--init"

    run: Path
    network: Network
    config: Config

    @classmethod
    def of(cls, run: Path) -> Self:
        """Read the last checkpoint of a run."""
        network, config, _ = load_network(run)
        return cls(run, network, config)

    def classifier_config(self, config: Config, say: Callable[[str], None]) -> Config:
        """A config of ``train-cls`` whose network is that of the run; ``drop_path`` and ``attention`` may be new.

        Args:
            config: as it was given.
            say: called with a remark for each other key of the network that was given and has no effect.

        Raises:
            UsageError: it names another backbone.
        """
        given, run = config.model, self.config.model
        if "backbone" in given.model_fields_set and given.backbone != run.backbone:
            raise UsageError(
                f"{self.run} has the backbone {run.backbone}; {given.backbone} was asked for",
                f"--backbone {run.backbone}, or leave out {self.option}",
            )
        new: dict[str, Any] = {
            name: getattr(given, name) for name in ("drop_path", "attention") if name in given.model_fields_set
        }
        remark_on_model(config, self.config, say, but=("drop_path", "attention"))
        lost = [edit.name for edit in run.attention if edit not in new.get("attention", run.attention)]
        if lost:
            say(f"{self.run} has edits of attention that are left out: {first_few(lost)}")
        return config.model_copy(update={"model": run.model_copy(update={**new, "weights": "none"})})

    def with_finetune(self, config: Config, train: TaggedSet) -> Config:
        """A config in which ``classify.finetune`` is decided: "auto" does as the run did.

        Args:
            config: its network is that of the run.
            train: the training split.
        """
        if config.classify.finetune != "auto":
            return config
        mode = mode_of(self.config, train)
        return config.model_copy(update={"classify": config.classify.model_copy(update={"finetune": mode})})

    def open_training(self, config: Config, reporter: Reporter) -> tuple[TaggedSet, TaggedSet | None]:
        """The splits of `open_training`, with the classes of the run.

        Raises:
            DataError: an image has a class that the run does not know, or the data are at fault.
        """
        try:
            return open_training(config, reporter, self.network.classes)
        except BadData as error:
            if not any(finding.kind == "tag-unknown" for finding in error.findings):
                raise
            raise DataError(
                f"{self.run} does not know all classes: {error.problem}", "correct the tags, or leave out --init"
            ) from error

    def give(self, network: Network, attention: tuple[EditSection, ...]) -> None:
        """Copy backbone, readout, normalisation and edits of attention into a network.

        Args:
            network: with the backbone, the readout and the classes of the run.
            attention: its edits, as its config has them. Those that the run has not keep their values.
        """
        self.give_trunk(network, attention)
        network.readout.load_state_dict(self.network.readout.state_dict())

    def give_trunk(self, network: Network, attention: tuple[EditSection, ...]) -> None:
        """`give` without the readout."""
        network.backbone.load_state_dict(self.network.backbone.state_dict())
        network.normalise_as(self.network.mean, self.network.std)
        learned = dict(zip(self.config.model.attention, self.network.attention, strict=True))
        for section, edit in zip(attention, network.attention, strict=True):
            if section in learned:
                edit.load_state_dict(learned[section].state_dict())
