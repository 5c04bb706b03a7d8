"""The base class of all errors that are the user's to act on, and what an error of the system means to them."""

from __future__ import annotations

import errno

from cifar_fast.utils.text import printable


class CifarFastError(Exception):
    """An error with a message for the user: it names the file or value and the next step.

    The command line prints the message and ends with `exit_code`; any other exception is a bug and shows itself.
    """

    exit_code = 2

    def __init__(self, message: str = ""):
        super().__init__(message)
        self.message = message

    def __str__(self):  # fastai appends its own text to the `args` of what a callback raises
        return self.message


class SettingError(CifarFastError, ValueError):
    "A setting or argument whose value cannot be used; also a ValueError, which Python code may expect of a bad value."


FP16_ON_CPU = "precision=fp16 is for GPUs; on a CPU use bf16 or fp32"
"Said of a recipe that names the CPU, and where `device=auto` finds no other."


class FileError(CifarFastError):
    "A file that the system cannot read or write."


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"The errors of a full disk, a quota and a limit on the size of files."

NEXT_STEP = {
    errno.ENOENT: "check the name, and that its folder exists",
    errno.ENOTDIR: "check the name",
    errno.EISDIR: "name a file",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions, or choose another place"),
}
"What to do about an error of the system, where that follows from it."


def file_error(e: OSError) -> FileError | None:
    "An error of the system with the next step; None where it names no file, so that it is none of the user's."
    if not (e.errno and e.filename):
        return None
    name = printable(e.filename2 or e.filename)  # of a rename the target: the other one is a temporary file of ours
    if e.errno in FULL:
        return FileError(f"{name} cannot be written ({e.strerror}): make room, or choose another place")
    return FileError(f"{name}: {e.strerror}" + (f"; {NEXT_STEP[e.errno]}" if e.errno in NEXT_STEP else ""))
