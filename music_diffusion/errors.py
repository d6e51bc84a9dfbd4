"""The error that a person can act on."""


class UserError(Exception):
    """Bad input. The message is one line that names the input and says what to do.

    The command line prints it without a traceback and exits with code 2.
    """
