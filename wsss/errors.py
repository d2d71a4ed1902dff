"""Errors that the user can correct: what is wrong, where, and a command that corrects it.

The command line prints them as two lines (``error:`` and ``fix:``) without a traceback and exits with their exit
status. Any other exception is a bug: it is printed with its traceback and the exit status is 1.
"""


class WsssError(Exception):
    """A problem that the user can correct.

    Args:
        problem: the offending value, where it came from and what was expected.
        fix: one command (or one short instruction) that corrects it.
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
    """A data set, an image, a tag, a weights file or a checkpoint that cannot be used."""

    exit_status = 3


class MachineError(WsssError):
    """Something that this machine lacks: an optional package, CUDA, memory, disk space."""

    exit_status = 4


class Interrupted(WsssError):
    """The run was asked to stop, saved its state and can be resumed."""

    exit_status = 75
