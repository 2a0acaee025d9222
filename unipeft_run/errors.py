"""What a user can mend."""


class UserError(ValueError):
    """A wrong word, a missing file, an unreachable source: one to three lines that say what to do.

    The command line prints the text on stderr and exits with 2; nothing else is lost.
    """
