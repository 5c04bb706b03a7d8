"""Names in messages: shown on one line, and the nearest known one to a misspelt word."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str:
    "The word that may have been meant, in brackets; empty where none is near."
    close = difflib.get_close_matches(word, list(words), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def printable(name) -> str:
    """`name` on one line that any terminal can show: line breaks and undecodable bytes become escapes."""
    text = os.fsdecode(name) if isinstance(name, bytes | os.PathLike) else str(name)
    # Persian, Hindi and emoji need the joiners U+200C and U+200D, which do nothing to a terminal.
    return "".join(c if c.isprintable() or c in "\u200c\u200d" else ascii(c)[1:-1] for c in text)


def encodable(name) -> str:
    """`name` for a file of UTF-8, where a line break may stay: undecodable bytes alone become escapes."""
    return str(name).encode("utf-8", "backslashreplace").decode()
