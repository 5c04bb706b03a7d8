"""Names in figures: in a font that has their characters, never read as mathematics."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from cifar_fast.utils.log import log_progress
from cifar_fast.utils.text import printable, short_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT = "DejaVu Sans"  # comes with matplotlib
BOXES = "Last Resort"  # comes with matplotlib too: draws a box for any character

explained: set[str] = set()  # characters that the user has been warned about


def numbered_in_figures(vocab: Iterable) -> dict[str, str]:
    "`class 3` → its name, for the classes whose names no installed font can draw."
    names = list(map(printable, vocab))
    _, missing = families("".join(names))
    return {f"class {i}": name for i, name in enumerate(names) if missing & set(name)}


def figure_names(vocab: Iterable, columns: int) -> list[str]:
    "Class names of at most `columns` characters; `class 3` for one that no installed font can draw."
    names = list(map(printable, vocab))
    numbers = {name: number for number, name in numbered_in_figures(names).items()}
    explain(families("".join(numbers))[1])
    return short_names([numbers.get(name, name) for name in names], columns)


def plain_text(fig: Figure) -> None:
    "Show every text of a figure as it is written: `$` is no mathematics, and characters that no font has become `?`."
    from matplotlib.table import Table
    from matplotlib.text import Text

    cells = [cell.get_text() for table in fig.findobj(Table) for cell in table.get_celld().values()]
    for text in [*fig.findobj(Text), *cells]:
        shown, fonts = drawable(text.get_text())
        text.set(text=shown, fontfamily=fonts, parse_math=False)


def drawable(text: str) -> tuple[str, list[str]]:
    "`text` with ? for what no installed font can draw, line by line printable, and the font families that draw it."
    text = "\n".join(map(printable, text.split("\n")))
    fonts, missing = families(text)
    explain(missing)
    return "".join("?" if c in missing else c for c in text), fonts


def explain(missing: set[str]) -> None:
    "Say why characters are not drawn, once in a process."
    if missing and not explained:
        explained.update(missing)
        some = " ".join(sorted(missing)[:12]) + (" …" if len(missing) > 12 else "")
        log_progress(f"no installed font has the characters {some}: figures show the number of a class (the first is "
                     f"class 0) instead of such a name, and ? elsewhere; to see them, install a font such as Noto Sans")


def families(text: str) -> tuple[list[str], set[str]]:
    "Fonts that draw `text` together, the default one first, and the characters that none of them has."
    from matplotlib.font_manager import findfont

    missing = {c for c in text if not c.isspace()} - characters(findfont(DEFAULT))
    fonts = [DEFAULT]
    for family, path in installed() if missing else ():
        if has := missing & characters(path):
            fonts.append(family)
            missing -= has
    return fonts, missing


@cache
def installed() -> list[tuple[str, str]]:
    "(family, path) of every upright font of usual weight, those without serifs first."
    from matplotlib.font_manager import findSystemFonts, fontManager

    known = {font.fname for font in fontManager.ttflist}
    for path in set(findSystemFonts()) - known:  # matplotlib's own list is as old as its cache
        try:
            fontManager.addfont(path)
        except (OSError, RuntimeError, NotImplementedError):  # of bitmaps, as colour emoji are, or damaged
            continue
    paths = {font.name: font.fname for font in fontManager.ttflist
             if font.style == "normal" and font.weight in (400, "normal", "regular") and BOXES not in font.name}
    return sorted(paths.items(), key=lambda font: ("Sans" not in font[0], "Mono" in font[0], font[0]))


@cache
def characters(path: str) -> frozenset[str]:
    "All that the font in this file can draw."
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError, NotImplementedError):  # has gone, or is damaged
        return frozenset()
