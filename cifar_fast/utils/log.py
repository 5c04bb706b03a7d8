"""How much a command prints besides its results (-q, default, -v), and progress on stderr."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

QUIET, NORMAL, VERBOSE = -1, 0, 1
_level = NORMAL


def set_level(level: int) -> None:
    global _level
    _level = level


@contextmanager
def as_before() -> Iterator[None]:
    "What a command sets here ends with it: another in the same process, such as a notebook's, starts anew."
    before = _level
    try:
        with warnings.catch_warnings():
            yield
    finally:
        set_level(before)


def quiet() -> bool:
    return _level == QUIET


def verbose() -> bool:
    return _level == VERBOSE


def log_progress(text: str) -> None:
    "Print progress on stderr, unless the command is quiet."
    if not quiet():
        print(text, file=sys.stderr, flush=True)


SECONDS = 5.0  # between two lines of progress; work that takes less prints none
T = TypeVar("T")


def progress(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    "Yield `items`; print now and then how many of `total` (0: unknown) are done, and at the end how long it took."
    start = printed = time.monotonic()
    count = 0
    for count, item in enumerate(items, 1):
        yield item
        if (now := time.monotonic()) - printed >= SECONDS:
            printed = now
            of = f" of {total:,}" if total else ""
            log_progress(f"{what}: {count:,}{of} {unit}")
    if printed > start:
        log_progress(f"{what}: {count:,} {unit} in {time.monotonic() - start:.0f} s")


def quiet_warnings() -> None:
    "Show our own warnings as one plain line; hide those of libraries, but for one that a user can act on."
    warnings.showwarning = lambda message, *_, **__: print(f"cifar_fast: {message}", file=sys.stderr)
    for package in ("fastai", "albumentations", "torch", "timm", "fasttransform", "plum", "sklearn", "PIL"):
        warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")
    # Why a GPU cannot be used, such as a driver that is too old: the CPU is, many times slower.
    warnings.filterwarnings("default", "CUDA initialization", module=r"torch\.cuda")
