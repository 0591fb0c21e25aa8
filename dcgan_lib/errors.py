"""Errors that a user can cause and can mend."""


class UserError(ValueError):
    """Report bad input in one sentence: what was expected, what came, what to do.

    The command line prints it as a single line and exits with status 2; everything else
    that goes wrong is a defect and keeps its traceback.
    """
