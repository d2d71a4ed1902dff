"""``wsss ceiling``: what a segmentation network could reach, were it trained on true masks in as many steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from wsss.cli.importing import heavy_imports
from wsss.cli.options import READING, Given, JsonOption, ResumeOption, RunOption, configured, option_of


@configured(
    *("data.root", "output", "of", "config", "assignments", "init", "model.backbone", "model.weights"),
    *("data.train_split", "data.val_split", *READING),
    *("segment.epochs", "segment.rounds", "segment.batch_size", "segment.lr", "augment.size"),
    *("run.device", "run.amp", "run.seed", "run.workers", "run.deterministic", "resume", "as_json"),
)
def ceiling(
    given: Given,
    output: RunOption = None,
    of: Annotated[
        Path | None,
        typer.Option(help="Run of train-seg whose ceiling this is: its settings, and the ratio.", metavar="RUN"),
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Run of train-cls to start from.", metavar="RUN")] = None,
    resume: ResumeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the same network on the true masks of the training split, in as many steps as all rounds take.

    This is pixel supervision, and the supervision of the run says so. With --of RUN the settings are those of a run of
    train-seg, and both are scored on the validation split: at one scale, without flip. Prints the run folder on
    standard output, with --json the figures.
    """
    from wsss.cli.running import new_run, processes, refuse_beside_resume, refuse_together, resume_changes
    from wsss.errors import UsageError

    if resume is not None:
        refuse_beside_resume(resume, given, output=output, init=init)
    else:
        refuse_together("--init", init, given, "model.backbone", "model.weights")
        config, run = new_run(given, output, "wsss ceiling --data DIR --of RUN -o CEILING")
        others = [name for name in given.names() if not name.startswith(("data.", "run."))]
        if of is not None and others:
            what = f"--of {of} brings its own settings, it takes no {', '.join(map(option_of, others))}"
            raise UsageError(what, f"leave out {option_of(others[0])}")

    with heavy_imports():
        from wsss.training.ceiling import score_both, settings_of
        from wsss.training.start import Moved, resume_segmenter, train_segmenter

    with processes() as (ranks, reporter):
        if resume is not None:
            run = resume
            network = resume_segmenter(resume, reporter, Moved(**resume_changes(given)), ranks=ranks)
        else:
            if of is not None:
                config, init = settings_of(of, config, given.names(), init)
            network = train_segmenter(config, run, reporter, init=init, true_masks=True, ranks=ranks)
        found = ranks.lead(lambda: score_both(network, run, of, reporter))
    if ranks.rank == 0:
        typer.echo(json.dumps(found) if as_json else run)
