"""One line every few seconds on stderr, for the rare work that takes long."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from cifar_fast.verbosity import aside

__all__ = ["progress"]

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
            aside(f"{what}: {count:,}{of} {unit}")
    if said > start:
        aside(f"{what}: {count:,} {unit} in {time.monotonic() - start:.0f} s")
