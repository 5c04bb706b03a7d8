"""CSV that a spreadsheet shows as text: a cell that it would run as a formula is defused.

https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # how a formula may start, full-width characters included
LINE_END = "\r\n\x1e"  # while a table is written: in no cell as a whole
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def safe_cell(text: str) -> str:
    "`text` with a single quote before it where a spreadsheet might take it for a formula; -0.5 stays as it is."
    return f"'{text}" if is_formula(text) else text


def original_cell(text: str) -> str:
    "What `safe_cell` was given."
    return text[1:] if text.startswith("'") and is_formula(text) else text


def is_formula(text: str) -> bool:
    # Leading quotes are skipped, so that a name that starts with '= survives a round trip.
    return text.lstrip("'").startswith(FORMULA) and not NUMBER.fullmatch(text)


def csv_text(frame: pd.DataFrame, header: bool = True) -> str:
    "The table with safe cells, in its heading too (left out without `header`); lines end with a line feed."
    safe = frame.map(lambda value: safe_cell(value) if isinstance(value, str) else value)
    # pandas quotes a cell with any character of the line terminator: LINE_END has \r, which alone would end a line too.
    text = safe.rename(columns=safe_cell).to_csv(index=False, header=header, lineterminator=LINE_END)
    return text.replace(LINE_END, "\n")
