"""What goes wrong with data, and how names are shown in the message."""

import os

__all__ = ["DataError", "PictureError", "encodable", "printable"]


class DataError(Exception):
    """Bad input: the message names the file or value and the next step."""


class PictureError(DataError):
    """One picture that cannot be used; those beside it can."""


def printable(name) -> str:
    """`name` on one line that any terminal can show: line breaks and undecodable bytes become escapes."""
    text = os.fsdecode(name) if isinstance(name, bytes | os.PathLike) else str(name)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def encodable(name) -> str:
    """`name` for a file of UTF-8, where a line break may stay: undecodable bytes alone become escapes."""
    return str(name).encode("utf-8", "backslashreplace").decode()
