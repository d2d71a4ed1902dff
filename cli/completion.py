"""``wsss completion``: the script that makes a shell complete commands, options and their values."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]  # as in main.py

from wsss.cli.completing import words

PROGRAM, VARIABLE = "wsss", "_WSSS_COMPLETE"
"""The program, and the variable by which the scripts ask it for words."""
WAYS = {
    "bash": 'eval "$(wsss completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(wsss completion zsh)"  # in ~/.zshrc, after compinit',
    "fish": "wsss completion fish > ~/.config/fish/completions/wsss.fish",
}
"""How each shell gets its script."""


def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.", autocompletion=words(*WAYS), metavar="SHELL")],
) -> None:
    """Print the completion script of a shell; how to install it goes to standard error."""
    from wsss.cli.terminal import remark
    from wsss.errors import UsageError

    if shell not in WAYS:
        raise UsageError(f"'{shell}': there is completion for {', '.join(WAYS)}", "wsss completion bash")
    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell))
    remark(WAYS[shell], "dim")
