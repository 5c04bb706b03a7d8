"""Names in messages: on one line, shortened, and the nearest known one to a misspelt word."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence


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


def width(text: str) -> int:
    "How many columns of a terminal `text` takes: two for a Chinese character, none for a combining mark."
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    return max(wcswidth(text), 0)


def shorten(text: str, columns: int, head: float = 0.5) -> str:
    "`text` in at most `columns`; the fraction `head` of what is kept comes before the dots."
    if width(text) <= columns:
        return text
    room = columns
    while True:
        room -= 1
        start = int(room * head)
        short = f"{text[:start]}…{text[len(text) - room + start:]}"
        if width(short) <= columns:
            return short


def short_names(names: Sequence[str], columns: int) -> list[str]:
    "Distinguishable names in at most `columns`: their middle left out, else their end, else their beginning."
    for head in (0.5, 1.0, 0.0):
        short = [shorten(name, columns, head) for name in names]
        if len(set(short)) == len(set(names)):
            return short
    return [shorten(f"{i} {name}", columns, 1.0) for i, name in enumerate(names)]
