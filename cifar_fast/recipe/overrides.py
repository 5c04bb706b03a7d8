"""`key=value` changes of the command line."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import Field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from cifar_fast.recipe.sizes import at_size
from cifar_fast.recipe.spec import COLUMNS, UNTYPED, Recipe, RecipeError, require_budget, require_value, typed_name
from cifar_fast.utils.files import expand_path
from cifar_fast.utils.text import nearest


def on_other_data(recipe: Recipe, data: str) -> Recipe:
    """The recipe on another dataset than its own, named NAME-DATA, so that it has a folder of its own.

    The mean and std of its own dataset are removed: those of the images are used. So are the columns of its table.
    """
    path = Path(os.path.realpath(expand_path(data)))
    short = path.stem if path.is_file() else path.name  # "digits" of digits
    if data.startswith("hf:"):
        short = re.sub(r"[^\w.-]", "-", data.removeprefix("hf:").rpartition("/")[2])
    return replace(recipe, data=data, name=f"{recipe.name}-{short}", stats=None, columns={})


def override(recipe: Recipe, changes: list[str]) -> Recipe:
    """A copy with `key=value` changes; `key.arg=value` changes an argument of a callable. Raises RecipeError.

    Another dataset also changes the run's name, see `on_other_data`, unless `name=` is given.
    """
    base = recipe.name or "final"
    # In whatever order they were typed: data= (it names the run) before name=, resize= before size= (which scales it),
    # sched=step before sched.gamma=0.1.
    for change in sorted(changes, key=lambda c: (not c.startswith("data="), "." in c.split("=")[0],
                                                 c.startswith("size="))):
        f, arg, text = split(change)
        name, now = f.name, getattr(recipe, f.name)
        if name == "data" and arg:
            name, new = "columns", _with_column(recipe, arg, text)
        elif name == "budget" and arg:
            new = _with_limit(now, arg, text)
        elif arg:
            new = _with_argument(name, now, arg, text)
        elif "from" in f.metadata:
            new = _callable(name, f.metadata["from"], text, optional=f.default is None)
        elif f.name in UNTYPED:
            raise RecipeError(f"{name} cannot be set here, it is more than one value; copy the recipe and edit it: "
                              f"python -m cifar_fast copy {base} mine.py")
        else:
            new = _value(f, text)
        if name == "data" and new != recipe.data:
            recipe = on_other_data(recipe, new)
        elif name == "size":
            recipe = at_size(recipe, new)
        else:
            recipe = replace(recipe, **{name: new})
    sched = getattr(recipe.sched, "func", recipe.sched)
    if getattr(sched, "sets_lr", False) and any(c.startswith("lr=") for c in changes):
        raise RecipeError(f"lr= has no effect with sched={sched.__name__}, which sets the rate itself; "
                          f"use sched.max_lr=…")
    return recipe


def _with_column(recipe: Recipe, column: str, text: str) -> dict[str, str]:
    "The columns of a label table, with one named: data.label=species."
    if column not in COLUMNS:
        raise RecipeError(f"data takes no {column!r}{nearest(column, COLUMNS)}; a label table has "
                          f"{', '.join(f'data.{c}=' for c in COLUMNS)}")
    return {**recipe.columns, column: text}


def _with_limit(budget: Any, limit: str, text: str) -> Any:
    "The budget, or the default one, with another limit: budget.max_params=50_000."
    from cifar_fast.audit import Budget

    require_budget(budget)
    known = {f.name: f for f in fields(Budget)}
    if limit not in known:
        raise RecipeError(f"budget has no {limit!r}{nearest(limit, known)}; it has {', '.join(known)}")
    kind = known[limit].type
    value = _scalar(f"budget.{limit}", getattr(kind, "__name__", str(kind)), text)
    if not isinstance(value, bool | None) and not 0 <= value < float("inf"):
        raise RecipeError(f"budget.{limit}={text}: must be a number of at least 0")
    return replace(budget or Budget(), **{limit: value})


def split(change: str) -> tuple[Field, str, str]:
    "`fit.pct_start=0.2` → the setting fit, its argument pct_start, 0.2. Raises RecipeError."
    key, sep, text = change.partition("=")
    if not sep:
        raise RecipeError(f"{change!r} is not key=value; for example epochs=30 or fit.pct_start=0.2")
    name, _, arg = key.partition(".")
    known = {f.name: f for f in fields(Recipe)}
    if name not in known:
        raise RecipeError(f"no setting is called {name!r}{nearest(name, known)}; the settings are {', '.join(known)}")
    if (own := known.get(f"{name}_{arg}")) and own.metadata.get("argument_of") == name:  # distill.alpha
        return own, "", text
    return known[name], arg, text


def check_typed(changes: Iterable[str]) -> None:
    """Raise RecipeError for settings that do not exist, and for values that a setting never takes.

    It needs no recipe: to load one takes seconds, as that imports torch. `override` looks at the rest.
    """
    for change in changes:
        f, arg, text = split(change)
        if not arg and "from" not in f.metadata and f.name not in UNTYPED and change != "lr=find":
            _value(f, text)


def _value(f: Field, text: str) -> Any:
    "What was typed for a setting, as its type. Raises RecipeError."
    value = text if "choices" in f.metadata else _scalar(typed_name(f), f.type, text)
    require_value(f, value)
    return value


def _scalar(name: str, kind: str, text: str) -> Any:
    if kind.startswith("str"):
        return None if "None" in kind and text.lower() in ("", "none") else text
    if kind == "bool | str" and text.lower() == "auto":
        return "auto"
    if kind.startswith("bool"):
        if text.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
            raise RecipeError(f"{name}={text}: expected true or false{' or auto' if 'str' in kind else ''}")
        return text.lower() in ("true", "1", "yes", "on")
    if "None" in kind and text.lower() in ("auto", "none"):
        return None
    try:
        number = float(text)
        if kind.startswith("int") and number != int(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise RecipeError(f"{name}={text}: expected {'a whole number' if kind.startswith('int') else 'a number'}"
                          f"{' or auto' if 'None' in kind else ''}") from None
    return int(number) if kind.startswith("int") else number


def choices(module: str) -> dict[str, Callable]:
    "The public callables of `module` by name: what the command line accepts for a field whose value is a callable."
    mod = importlib.import_module(module)
    return {n: getattr(mod, n) for n in mod.__all__}


def _callable(name: str, module: str, text: str, optional: bool) -> Callable | None:
    if optional and text.lower() == "none":
        return None
    known = choices(module)
    if text not in known:
        raise RecipeError(f"{name}={text}: choose one of {', '.join([*known, *(['none'] if optional else [])])}"
                          f"{nearest(text, known)}")
    return partial(known[text])


def settings(value: Callable | None) -> dict[str, Any]:
    "The arguments of a recipe's callable that a user may set, with their current values."
    if value is None:
        return {}
    func, given = (value.func, value.keywords) if isinstance(value, partial) else (value, {})
    params = inspect.signature(func).parameters.values()
    return {p.name: given.get(p.name, p.default) for p in params
            if p.kind == p.KEYWORD_ONLY or p.name in given or (inspect.isclass(func) and p.name != "self")}


def example_of(name: str, arg: str) -> str:
    "`key=function` with a function that this setting of a Recipe takes, if possible one that takes `arg`."
    module = importlib.import_module(next(f.metadata["from"] for f in fields(Recipe) if f.name == name))
    functions = getattr(module, "__all__", [name])
    return f"{name}={next((f for f in functions if arg in settings(getattr(module, f))), functions[0])}"


def _with_argument(name: str, now: Any, arg: str, text: str) -> partial:
    if not callable(now):
        if not any(f.name == name and "from" in f.metadata for f in fields(Recipe)):
            raise RecipeError(f"{name}.{arg}={text}: {name} is {now!r} in this recipe and takes no arguments; write "
                              f"{name}=VALUE")
        raise RecipeError(f"{name}.{arg}={text}: {name} is {now!r} in this recipe and takes no arguments; choose a "
                          f"function first, as in {example_of(name, arg)} {name}.{arg}={text}")
    known = settings(now)
    if arg not in known:
        raise RecipeError(f"{name} takes no {arg!r}{nearest(arg, known)}; it takes {', '.join(known) or 'none'}")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{name}.{arg}={text}: expected a finite number")
    old = known[arg]
    numbers = (int, float)
    if old is not None and old is not inspect.Parameter.empty and type(value) is not type(old) and not (
            isinstance(old, numbers) and isinstance(value, numbers) and bool not in (type(old), type(value))):
        raise RecipeError(f"{name}.{arg}={text}: expected a value like {old!r}")
    func, given = (now.func, now.keywords) if isinstance(now, partial) else (now, {})
    if inspect.signature(func).parameters[arg].annotation in ("int", int) and value != int(value):
        raise RecipeError(f"{name}.{arg}={text}: expected a whole number")
    return partial(func, **{**given, arg: value})
