"""What goes wrong with data."""

from cifar_fast.utils.errors import CifarFastError


class DataError(CifarFastError):
    """Bad input: the message names the file or value and the next step."""


class ImageError(DataError):
    """One image that cannot be used; the others can."""
