"""How much a command says beside its results: -q, nothing or -v."""

from __future__ import annotations

import sys

QUIET, NORMAL, VERBOSE = -1, 0, 1
_level = NORMAL


def set_level(level: int) -> None:
    global _level
    _level = level


def quiet() -> bool:
    return _level == QUIET


def verbose() -> bool:
    return _level == VERBOSE


def aside(text: str) -> None:
    "Say on stderr how far something is; a quiet command does not."
    if not quiet():
        print(text, file=sys.stderr, flush=True)
