"""Memory of large images: back to the operating system once they have been classified."""

from __future__ import annotations

import ctypes
from contextlib import suppress

BLOCK = 8 * 2**20  # bytes; Pillow holds an image in blocks of up to 16 MiB
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def return_large_blocks() -> None:
    """Have malloc return blocks of BLOCK bytes and more when they are freed, where the C library is glibc.

    It raises this limit by itself, to 32 MiB, when large blocks are freed; from then on threads keep most of theirs.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library: no mallopt, or none to open
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, BLOCK)
