"""How much a command says beside its results (-q, nothing or -v), and progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

QUIET, NORMAL, VERBOSE = -1, 0, 1
_level = NORMAL


def set_level(level: int) -> None:
    global _level
    _level = level


def quiet() -> bool:
    return _level == QUIET


def verbose() -> bool:
    return _level == VERBOSE


def log_progress(text: str) -> None:
    "Say on stderr how far something is; a quiet command does not."
    if not quiet():
        print(text, file=sys.stderr, flush=True)


_EVERY = 5.0  # seconds; what is done sooner stays silent
T = TypeVar("T")


def progress(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    "Pass `items` on, saying now and then how many of `total` (0: unknown) went by, and how long it took."
    start = said = time.monotonic()
    count = 0
    for count, item in enumerate(items, 1):
        yield item
        if (now := time.monotonic()) - said >= _EVERY:
            said = now
            of = f" of {total:,}" if total else ""
            log_progress(f"{what}: {count:,}{of} {unit}")
    if said > start:
        log_progress(f"{what}: {count:,} {unit} in {time.monotonic() - start:.0f} s")
