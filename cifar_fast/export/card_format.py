"""card.json as text: its format, and how its content is checked where it is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.text import printable

NAME = "card.json"
FORMAT = 2
"Of card.json; another number is refused."

T = TypeVar("T")


class ExportError(CifarFastError):
    "A saved run that cannot be written or read; the message names the file and the next step."


def validated(cls: type[T], content: str | bytes, path: str | Path) -> T:
    "The dataclass that this JSON describes. Raises ExportError, which names `path` and the field that is wrong."
    try:
        form = adapter(Form).validate_json(content).format
        if form != FORMAT:
            raise ExportError(f"{path} has format {shown(form)}, this version reads {FORMAT}; train again")
        return adapter(cls).validate_json(content, strict=True)
    except (ValidationError, RecursionError, MemoryError) as e:
        raise ExportError(f"{path}: {reason(e)}; restore the file, or train again") from None


@dataclass(frozen=True)
class Form:
    format: Any = None


@cache
def adapter(cls: type) -> TypeAdapter:
    return TypeAdapter(cls)


def reason(e: Exception) -> str:
    "`vocab[3]: Input should be a valid string, not 7`, of the first thing that is wrong."
    if not isinstance(e, ValidationError):
        return f"it cannot be read ({type(e).__name__})"
    first = e.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    text = f"{where}: {first['msg']}" if where else f"it cannot be read: {first['msg']}"
    if where and first["type"] not in ("missing", "card"):
        text += f", not {shown(first['input'])}"
    return printable(text)


def shown(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
