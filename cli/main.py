"""The program ``wsss``: its commands, and how errors leave it (``STATUSES``)."""

from __future__ import annotations

import errno
import sys
from typing import Annotated, Any

import typer

from wsss import __version__
from wsss.cli import config, data
from wsss.cli.backbones import backbones
from wsss.cli.demo import demo
from wsss.cli.evaluate import evaluate
from wsss.cli.make_pseudo import make_pseudo
from wsss.cli.predict import predict
from wsss.cli.train_cls import train_cls
from wsss.cli.train_seg import train_seg
from wsss.errors import WsssError

CommandLineError: Any = typer.BadParameter.__base__
"""Click's UsageError. Older versions of typer use the package click, later ones a copy of their own."""

CTRL_C = 130

MACHINE_ERRORS = {
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "free some space, then run the same command again",
}

STATUSES = """
Exit status: 0 done; 1 a bug, with its traceback; 2 a flag or config that cannot work; 3 data, weights or a checkpoint
that does not fit; 4 something this machine lacks, or that died on it; 75 stopped by a signal, and the same work can go
on; 130 Ctrl-C.
"""

app = typer.Typer(
    name="wsss",
    epilog=STATUSES,
    help="Pixel masks from images with tags: GETAM, weakly supervised semantic segmentation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("train-cls")(train_cls)
app.command("make-pseudo")(make_pseudo)
app.command("train-seg")(train_seg)
app.command("predict")(predict)
app.command("evaluate")(evaluate)
app.command("demo")(demo)
app.command("backbones")(backbones)
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wsss {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    pass


def run() -> None:
    """Run the program; errors the user can mend are two lines, bugs keep their traceback."""
    try:
        status = app(standalone_mode=False)
    except WsssError as error:
        _leave(error.problem, error.fix, error.exit_status)
    except CommandLineError as error:
        _leave_with_usage(error)
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        _leave(f"{error.filename or 'a file'}: {error.strerror}", MACHINE_ERRORS[error.errno], 4)
    except (KeyboardInterrupt, typer.Abort):
        _leave("stopped by Ctrl-C", "run the same command again", CTRL_C)
    else:
        if status == CTRL_C:  # which newer versions of typer return
            _leave("stopped by Ctrl-C", "run the same command again", CTRL_C)
        sys.exit(status if isinstance(status, int) else 0)


def _leave_with_usage(error: Any) -> None:
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is on the screen already, or it is the message
        print(message, end="\n" if message else "", file=sys.stderr)
        sys.exit(2)
    _leave(message, f"{error.ctx.command_path if error.ctx else 'wsss'} --help", 2)


def _leave(problem: str, fix: str, status: int) -> None:
    print(f"error: {problem}\nfix:   {fix}", file=sys.stderr)
    sys.exit(status)
