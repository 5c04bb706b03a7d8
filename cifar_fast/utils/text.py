"""Names in messages: on one line, shortened, and the nearest known one to a misspelt word."""

from __future__ import annotations

import difflib
import os
import re
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


def is_printable(text: str) -> bool:
    "Whether `printable` leaves it as it is."
    return printable(text) == text


def is_windows_path(name: str) -> bool:
    r"Whether this is a path with a drive or a server of Windows, C:\x or \\server\x, on another system."
    return os.name != "nt" and bool(re.match(r"[A-Za-z]:[\\/]|\\\\", str(name)))


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
    """Distinguishable names in at most `columns`, their middle left out.

    Of those that would then be alike, and only of these, another part is, or they get a number.
    """
    short = {name: shorten(name, columns) for name in names}
    groups: dict[str, list[str]] = {}
    for name, text in short.items():
        groups.setdefault(text, []).append(name)
    taken = {text for text, alike in groups.items() if len(alike) == 1}
    for alike in (alike for alike in groups.values() if len(alike) > 1):
        numbers = {name: f"{names.index(name)} " for name in alike}
        numbered = [number + shorten(name, columns - len(number)) for name, number in numbers.items()]
        cuts = ([shorten(name, columns, head) for name in alike] for head in (0.75, 0.25, 1.0, 0.0))
        best = next((cut for cut in cuts if len(set(cut) - taken) == len(alike)), numbered)
        short.update(zip(alike, best, strict=True))
        taken.update(best)
    return [short[name] for name in names]
