"""The one base class of all errors that are the input's and not ours."""


class CifarFastError(Exception):
    """An error with a message for the user: it names the file or value and the next step.

    The command line prints the message and ends with `exit_code`; any other exception is a bug and shows itself.
    """

    exit_code = 2

    def __init__(self, message: str = ""):
        super().__init__(message)
        self.message = message

    def __str__(self):  # fastai puts its own words into the `args` of what a callback raises
        return self.message
