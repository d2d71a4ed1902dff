"""The program ``wsss``: its commands, and how errors become messages and exit statuses (``STATUSES``)."""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]  # public, not in its __all__

from wsss import __version__
from wsss.cli import config, data, serve
from wsss.cli.analyze import analyze
from wsss.cli.backbones import backbones
from wsss.cli.ceiling import ceiling
from wsss.cli.commands import Commands
from wsss.cli.completion import completion
from wsss.cli.demo import demo
from wsss.cli.doctor import doctor
from wsss.cli.evaluate import evaluate
from wsss.cli.explain import explain
from wsss.cli.export import export
from wsss.cli.fit_refiner import fit_refiner
from wsss.cli.log import event, leave, log, style
from wsss.cli.make_pseudo import make_pseudo
from wsss.cli.merge import merge
from wsss.cli.predict import predict
from wsss.cli.replay import replay
from wsss.cli.report_page import report
from wsss.cli.review import review
from wsss.cli.robustness import robustness
from wsss.cli.run import run as run_command
from wsss.cli.show import show
from wsss.cli.status import status
from wsss.cli.submit import submit
from wsss.cli.train_cls import train_cls
from wsss.cli.train_seg import train_seg
from wsss.cli.verify import verify
from wsss.errors import MachineError, WsssError
from wsss.files import REMEDIES, DiskError
from wsss.stopping import AGAIN, CTRL_C, ending

CommandLineError: Any = typer.BadParameter.__base__
"""Click's UsageError. Older versions of typer use the package click, later ones a copy of their own."""

OUT_OF_MEMORY = {
    "the GPU": re.compile("OutOfMemoryError|CUDA error: out of memory|_ALLOC_FAILED"),
    "this machine": re.compile("MemoryError|DefaultCPUAllocator|Cannot allocate memory"),
}
"""Whose memory is full, by the type and text of an error; errors of loader processes have their type in the text."""

WANTED = re.compile(r"(?:tried|unable) to allocate ([0-9.]+ \w+)", re.IGNORECASE)

USES_LESS = {
    "train-cls": "start a new run with a smaller --batch-size or with --amp bf16",
    "train-seg": "start a new run with a smaller --batch-size, with --amp bf16 or with --set run.batch_pixels=65536",
    "ceiling": "start a new run with a smaller --batch-size or with --amp bf16",
    "analyze": "--set run.batch_pixels=65536; if that is not enough, a smaller --side with another -o",
    "robustness": "--set run.batch_pixels=65536; if that is not enough, a smaller --side with another -o",
    "fit-refiner": "--set run.batch_pixels=65536; if that is not enough, a smaller --limit",
    "make-pseudo": "--set run.batch_pixels=65536; if that is not enough, --pamr-stride 2 in a new folder",
    "run": "a new folder with --set classify.batch_size=8 --set segment.batch_size=8, or with a smaller --size",
    "predict": "--set run.batch_pixels=65536; if that is not enough, smaller --scales in a new folder",
    "demo": "--overwrite --set classify.batch_size=4 --set segment.batch_size=2 --set run.batch_pixels=65536",
}
"""Options that make a command need less memory."""

STATUSES = """
Exit status: 0 done; 1 a bug, with its traceback; 2 a flag or config that cannot work; 3 data, weights or a checkpoint
that does not fit; 4 something this machine lacks, or a process that died; 75 stopped by a signal, can be resumed;
130 Ctrl-C.
"""

app = Commands(
    name="wsss",
    epilog=STATUSES,
    help="Pixel masks from images with tags: GETAM, weakly supervised semantic segmentation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("run")(run_command)
app.command("train-cls")(train_cls)
app.command("make-pseudo")(make_pseudo)
app.command("train-seg")(train_seg)
app.command("predict")(predict)
app.command("evaluate")(evaluate)
app.command("export")(export)
app.command("merge")(merge)
app.command("status")(status)
app.command("verify")(verify)
app.command("submit")(submit)
app.command("review")(review)
app.command("analyze")(analyze)
app.command("robustness")(robustness)
app.command("fit-refiner")(fit_refiner)
app.command("ceiling")(ceiling)
app.command("replay")(replay)
app.command("report")(report)
app.command("show")(show)
app.command("demo")(demo)
app.command("backbones")(backbones)
app.command("doctor")(doctor)
app.command("explain")(explain)
app.command("completion")(completion)
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")
app.add_typer(serve.app, name="serve")


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
    """Run the program. Errors that the user can mend are printed as two lines; bugs keep their traceback."""
    style.choose(sys.argv[1:])
    completion_init()  # typer's own options for it would print the script of another shell
    try:
        status = app(standalone_mode=False)
    except WsssError as error:
        if _is_said(error):
            sys.exit(error.exit_status)
        leave(error.problem, error.fix, error.exit_status, error.kind)
    except CommandLineError as error:
        _leave_with_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        _leave_after_ctrl_c()
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # Python 3.11 wraps one that comes within a class statement
            _leave_after_ctrl_c()
        refusal = (
            _refusal(error) if isinstance(error, OSError | MemoryError | RuntimeError | UnicodeEncodeError) else None
        )
        if refusal is None and not style.as_json:
            raise
        if refusal is None:
            event("bug", traceback=traceback.format_exc())
            sys.exit(1)
        leave(refusal.problem, refusal.fix, refusal.exit_status, refusal.kind)
    else:
        if status == CTRL_C:  # newer versions of typer return it instead of raising
            _leave_after_ctrl_c()
        log.flush()
        sys.exit(status if isinstance(status, int) else 0)


def _is_said(error: BaseException | None) -> bool:
    """Whether another process of a training prints this error, or the one that it follows from."""
    return error is not None and (getattr(error, "is_said", False) or _is_said(error.__cause__))


def _refusal(error: Exception) -> MachineError | None:
    """The error to report where a write failed or memory ran out; None where the error is a bug."""
    if isinstance(error, OSError) and error.errno in REMEDIES:
        return DiskError(Path(error.filename or "a file"), error)
    if isinstance(error, UnicodeEncodeError) and sys.getfilesystemencoding() != "utf-8":
        return MachineError(
            f"the locale's encoding, {error.encoding}, cannot write the name {error.object!r}", "export PYTHONUTF8=1"
        )
    words = f"{type(error).__name__}: {error}"
    if "can't start new thread" in words:
        return MachineError("this machine starts no more threads for this user", "ulimit -u  # or end other programs")
    for owner, shown in OUT_OF_MEMORY.items():
        if shown.search(words):
            wanted = WANTED.search(words)
            more = f": {wanted[1]} more were wanted" if wanted else ""
            command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
            fix = USES_LESS.get(command, "free some memory, then run the same command again")
            return MachineError(f"{owner} has no memory left{more}", fix)
    return None


def _leave_with_usage(error: Any) -> None:
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is on the screen already, or it is the message
        log.write(f"{message}\n" if message else "")
        sys.exit(2)
    leave(message, f"{error.ctx.command_path if error.ctx else 'wsss'} --help", 2, "usage")


def _leave_after_ctrl_c() -> NoReturn:
    problem, status = ending("SIGINT")
    leave(problem, AGAIN, status, "interrupted")
