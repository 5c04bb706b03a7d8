"""A recipe as JSON-able data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any


def describe(value: Any) -> Any:
    "`value` as JSON-able data: callables by import path, partials as {call, args}, transforms by their own dict."
    if isinstance(value, partial):
        args = {k: describe(v) for k, v in value.keywords.items()}
        return {"call": describe(value.func), "args": args}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: describe(getattr(value, f.name)) for f in fields(value)}
    if hasattr(value, "get_transform_init_args"):  # an Albumentations transform
        return {type(value).__name__: describe({"p": value.p, **value.get_transform_init_args()})}
    if hasattr(value, "transforms"):  # several: OneOf, Sequential …
        some = {key: getattr(value, key) for key in ("n", "replace") if hasattr(value, key)}  # SomeOf, RandomOrder
        return {type(value).__name__: {"p": value.p, **some, "transforms": describe(list(value.transforms))}}
    if isinstance(value, Path):
        return str(value)
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    return value


def flatten(described: Any, at: str = "") -> dict[str, Any]:
    "Nested dicts as one, keys joined with dots; lists, and what is empty, stay as they are."
    if not isinstance(described, dict) or not described:
        return {at: described}
    return {key: value for name, inner in described.items()
            for key, value in flatten(inner, f"{at}.{name}" if at else name).items()}
