"""One line every few seconds on stderr, for the rare work that takes long."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

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
            print(f"{what}: {count:,}{of} {unit}", file=sys.stderr, flush=True)
    if said > start:
        print(f"{what}: {count:,} {unit} in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
