"""Errors that speak to the user: what is wrong and where, and the command that mends it.

The command line prints them as two lines (``error:`` and ``fix:``) without a traceback and leaves with
their exit status. Anything else that escapes is a bug: it keeps its traceback and leaves with 1.
"""


class WsssError(Exception):
    """A problem the user can mend.

    Args:
        problem: the offending value, where it came from and what was expected.
        fix: one command (or one short instruction) that mends it.
    """

    exit_status = 1

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem} (fix: {self.fix})"


class UsageError(WsssError):
    """A flag, a config key or a combination of them that cannot work."""

    exit_status = 2


class DataError(WsssError):
    """A data set, an image, a tag, a weights file or a checkpoint that does not fit."""

    exit_status = 3


class MachineError(WsssError):
    """Something this machine lacks: an optional package, CUDA, room on the disk."""

    exit_status = 4


class Interrupted(WsssError):
    """The run was asked to stop, saved its state and can be resumed."""

    exit_status = 75
