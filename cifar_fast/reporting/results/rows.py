"""One run as one row: from its card, and in words what was typed to change its recipe."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import MISSING, fields
from typing import Any

from cifar_fast.recipe import UNTYPED, Recipe, describe, elsewhere, list_recipes, load_recipe, settings_that

ASIDE = settings_that(affects_weights=False) | {"seed", "device"}
"Settings that do not make another experiment; `seed`, `recipe` and `device` have columns of their own."


def row(card: dict, typed: str) -> dict[str, Any]:
    "The row of a finished run. Shares of 1, seconds, None where the run has no such figure."
    from cifar_fast.training.callbacks.stopping import watched  # fastai, which whoever holds a card has loaded

    found = card["test"] or card["held_out"] or {}
    last, best, seconds = card["last_epoch"], card["best_epoch"] or {}, card["seconds"]
    audit, machine = card["audit"], card["machine"]
    return {
        "recipe": card["name"],
        "recipe_id": recipe_id(card["recipe"]),
        "settings": typed,
        "seed": card["recipe"]["seed"],
        "epochs": card["epochs"],
        "accuracy": found.get("accuracy"),
        "accuracy_tta": found.get("accuracy_tta"),
        "accuracy_without_ema": found.get("accuracy_without_ema"),
        "last_accuracy": rounded(last.get(watched(last)), 6),  # of the weights that best_accuracy watches
        "best_accuracy": rounded(best.get("accuracy"), 6),
        "best_epoch": best.get("epoch"),
        "on": card.get("on"),  # this and `to_85` are not in the first cards
        "protocol": card["protocol"],
        "parameters": audit["params"],
        "receptive_field": audit["receptive_field"],
        "multiply_adds": audit["macs"],
        "train_loss": rounded(last["train_loss"], 4),
        "seconds": rounded(seconds["training"], 1),
        "seconds_epoch": rounded(seconds["epoch"], 1),
        "seconds_to_85": rounded(seconds.get("to_85"), 1),
        "data": card["data"]["name"],
        "device": machine["device"],
        "threads": machine["threads"],
        "precision": machine["precision"],
        "compiled": machine["compiled"],
        "date": card["date"],
        "commit": card["commit"],
    }


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


# ---------------------------------------------------------------- what makes two runs one experiment


def recipe_id(described: dict) -> str:
    """Eight hex digits of a described recipe: the same for all seeds and machines of an experiment.

    Values that are `Recipe`'s defaults are left out, so a setting that is new in this project leaves old ids alone.
    """
    defaults = {f.name: plain(describe(f.default)) for f in fields(Recipe) if f.default is not MISSING} | {"waive": {}}
    told = {k: plain(v) for k, v in described.items() if k not in ASIDE}
    told = {k: v for k, v in told.items() if k not in defaults or v != defaults[k]}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]


def plain(value: Any) -> Any:
    "One form for what means the same: 5000.0 is 5000, and a callable without arguments is its path alone."
    if isinstance(value, dict):
        value = {k: plain(v) for k, v in value.items()}
        return value["call"] if list(value) == ["call", "args"] and not value["args"] else value
    if isinstance(value, list):
        return [plain(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ---------------------------------------------------------------- what was typed


def changes(recipe: Recipe, finds_lr: bool = False) -> str:
    """How `recipe` differs from the project's recipe that it is named after, in words of the command line.

    Empty for the recipe as it stands, and for one that is not the project's.
    """
    names = [n for n in list_recipes() if recipe.name == n or recipe.name.startswith(f"{n}-")]
    if not names:
        return ""
    base = load_recipe(max(names, key=len))
    typed = []
    if recipe.data != base.data:
        typed, base = [f"data={recipe.data}"], elsewhere(base, recipe.data)
    before, after = plain(describe(base)), plain(describe(recipe))
    differ = [f for f in fields(Recipe) if f.name not in ASIDE and before[f.name] != after[f.name]]
    if any(f.name in UNTYPED for f in differ):
        return ""  # somebody's own file of that name
    for f in differ:
        compare = words_of_call if "from" in f.metadata else words_of_value
        typed += compare(f.name, before[f.name], after[f.name])
    return " ".join(shlex.quote(word) for word in [*typed, *(["lr=find"] if finds_lr else [])])


def words_of_value(key: str, before, after) -> list[str]:
    return [f"{key}={text(after)}"]


def words_of_call(key: str, before, after) -> list[str]:
    "The callable where it is another one, then the arguments that are."
    def parts(value):
        return (value["call"], value["args"]) if isinstance(value, dict) else (value, {})

    (old, known), (new, args) = parts(before), parts(after)
    if old == new:
        named = []
    else:
        named, known = [f"{key}={text(new and new.rsplit('.', 1)[-1])}"], {}
    return named + [f"{key}.{k}={text(v)}" for k, v in args.items() if k not in known or known[k] != v]


def text(value: Any) -> str:
    "A value as the command line reads it."
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"({','.join(map(text, value))}{',' if len(value) == 1 else ''})"
    return str(value)
