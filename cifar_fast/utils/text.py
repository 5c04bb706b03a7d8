"""Names in messages: on one line, without control characters; and the known name that was probably meant."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str:
    "' (did you mean X?)', X being the word most like `word`; '' where none is like it."
    close = difflib.get_close_matches(word, list(words), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def printable(name) -> str:
    "`name` on one line that any terminal can show: control characters and undecodable bytes become escapes."
    text = os.fsdecode(name) if isinstance(name, bytes | os.PathLike) else str(name)
    # Persian, Hindi and emoji need the joiners U+200C and U+200D, which do nothing to a terminal.
    return "".join(c if c.isprintable() or c in "\u200c\u200d" else ascii(c)[1:-1] for c in text)


def encodable(name) -> str:
    "`name` for a UTF-8 file: undecodable bytes become escapes, line breaks stay."
    return str(name).encode("utf-8", "backslashreplace").decode()
