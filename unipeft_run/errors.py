"""Exceptions that users see, without a traceback: errors that they can fix, and interrupts."""

import signal


class UserError(ValueError):
    """An error that the user can fix, such as a wrong value, a missing file or an unreachable hub.

    The message has one to three lines and says what to do. The command line prints it to stderr and
    exits with code 2.
    """


class CannotLoad(UserError):
    """A library could not load a file, perhaps only this time: the network or the disk failed."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the run; the same command resumes it.

    Like `KeyboardInterrupt` it is not an `Exception`, so failure handlers let it propagate.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
