"""What may have been meant by a word that nothing is called."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str:
    "The word that may have been meant, in brackets; empty where none is near."
    close = difflib.get_close_matches(word, list(words), 1)
    return f" (did you mean {close[0]}?)" if close else ""
