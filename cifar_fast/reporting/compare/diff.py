"""Two recipes, or the recipes of two runs, value by value, as the command line names them."""

from __future__ import annotations

from dataclasses import fields
from inspect import Parameter
from typing import Any

from cifar_fast.recipe import Recipe, describe, flatten, load_recipe, settings, settings_that
from cifar_fast.reporting.compare.runs import Run

ABSENT = object()
PLACE = settings_that(affects_weights=False) - {"init"}  # of which `init` says where the weights began


def recipe_differences(first: str, second: str) -> dict[str, dict[str, Any]]:
    """Dotted name of a value → {recipe: value} for each that differs; a recipe that has no such value is left out.

    Values are those that a run would use, so an argument that is left at its default equals one that spells it out.
    Raises RecipeError.
    """
    return differing((first, second), values(load_recipe(first)), values(load_recipe(second)))


def run_differences(first: Run, second: Run) -> dict[str, dict[str, Any]]:
    "The same of two runs, from what their cards hold of their recipes."
    return differing((first.name, second.name), *(described_values(run.card.recipe) for run in (first, second)))


def differing(names: tuple[str, str], one: dict[str, Any], two: dict[str, Any]) -> dict[str, dict[str, Any]]:
    order = [f.name for f in fields(Recipe)]
    settings_of = {key: key.split(".")[0] for key in {**one, **two}}
    place = {key: order.index(name) if name in order else len(order) for key, name in settings_of.items()}
    result = {}
    for key in sorted(place, key=place.get):  # stable within a setting
        if one.get(key, ABSENT) != two.get(key, ABSENT) and not belongs_to_one(key, one, two):
            result[key] = {name: held[key] for name, held in zip(names, (one, two), strict=True) if key in held}
    return result


def described_values(recipe: dict) -> dict[str, Any]:
    "Dotted name → value of a described recipe, without the settings that do not affect the weights."
    result: dict[str, Any] = {}
    for name, value in recipe.items():
        if name in PLACE:
            continue
        if isinstance(value, dict) and "call" in value:
            result[name] = str(value["call"]).rpartition(".")[2]
            args = value.get("args")
            result |= {k: v for k, v in flatten(args, name).items() if k != name} if isinstance(args, dict) else {}
        elif name == "augment" and isinstance(value, list) and all(
                isinstance(one, dict) and len(one) == 1 for one in value):
            result |= transforms(value, name)
        else:
            result |= {k: v for k, v in flatten(value, name).items() if v != {}}
    return result


def values(recipe: Recipe) -> dict[str, Any]:
    "Dotted name → value: `fit` is the callable's name, `fit.pct_start` an argument, `augment` the transforms in order."
    from cifar_fast.audit import Budget

    result: dict[str, Any] = {}
    for f in fields(Recipe):
        value = getattr(recipe, f.name)
        if "from" in f.metadata:
            func = getattr(value, "func", value)
            path = describe(func)
            known = func is not None and func.__module__.startswith(f.metadata["from"])
            result[f.name] = path.rsplit(".", 1)[-1] if known else path  # in full for the user's own callables
            given = {k: v for k, v in settings(value).items() if v is not Parameter.empty}
            result |= {k: v for k, v in flatten(describe(given), f.name).items() if k != f.name}
        elif f.name == "augment":
            result |= transforms(describe(value), f.name)
        elif f.name != "name":  # which is where a run is saved
            flat = flatten(describe(value or Budget() if f.name == "budget" else value), f.name)
            result |= {k: v for k, v in flat.items() if v != {}}
    return result


def transforms(described: list[dict], at: str) -> dict[str, Any]:
    "The names in order under `at`, the arguments of each under its name; a second one of a name is called NAME-2."
    result: dict[str, Any] = {at: []}
    for one in described:
        kind, args = next(iter(one.items()))
        args = dict(args) if isinstance(args, dict) else args
        count = sum(n.split("-")[0] == kind for n in result[at])
        name = f"{kind}-{count + 1}" if count else kind
        result[at].append(name)
        inner = args.pop("transforms", None) if isinstance(args, dict) else None
        result |= flatten(args, f"{at}.{name}")
        if inner is not None:
            result |= transforms(inner, f"{at}.{name}.transforms")
    return result


def belongs_to_one(key: str, one: dict, two: dict) -> bool:
    "Whether this is an argument of a transform that only one recipe has: the list of names shows that already."
    if not key.startswith("augment."):
        return False
    return any((key in have) and not any(k.startswith(f"{key.rsplit('.', 1)[0]}.") for k in other)
               for have, other in ((one, two), (two, one)))
