"""Errors that the user can fix; shown without a traceback."""


class UserError(ValueError):
    """An error that the user can fix, such as a wrong value, a missing file or an unreachable hub.

    The message has one to three lines and says what to do. The command line prints it to stderr and
    exits with code 2.
    """
