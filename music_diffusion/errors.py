"""The error that a person can act on."""


class UserError(Exception):
    """Bad input. The message is one line that names the input and says what to do.

    The command line prints it without a traceback and exits with `exit_code`.
    """

    exit_code = 2


class PictureError(UserError):
    """The work is done and its files are there, but not the picture that was asked for with them."""

    exit_code = 3


class StoppedError(UserError):
    """A signal stopped the work, which has been saved; the message says how to go on.

    The command line exits with 128 + the signal's number, as shells and schedulers expect.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.exit_code = 128 + number
