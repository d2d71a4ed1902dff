"""Groups of commands; each command takes the options that say what standard error carries."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from wsss.cli.log import LOG_JSON, QUIET

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS = {
    "quiet": typer.Option(QUIET, help="Print errors alone: no progress, remarks or tables."),
    "log_json": typer.Option(
        LOG_JSON, help="Print one JSON object a line on standard error: remarks, progress, tables, errors."
    ),
}
"""By the name of the parameter; `wsss.cli.log.Style` reads them from the command line, which may be a wrong one."""


class Commands(typer.Typer):
    """A group whose commands take ``OPTIONS`` beside their own."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        """Register a command, as ``typer.Typer.command`` does; the function stays as it is."""
        register = super().command(name, **settings)

        def decorate(command: Function) -> Function:
            register(_with_options(command))
            return command

        return decorate


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with ``OPTIONS``, whose values it does not get."""

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        return command(**{name: value for name, value in values.items() if name not in OPTIONS})

    parameters = [*inspect.signature(command, eval_str=True).parameters.values()]
    for name, option in OPTIONS.items():
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=False, annotation=Annotated[bool, option]))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
