"""One run as one row of a table, the id of its experiment, and its changes to the recipe as key=value."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import MISSING, fields
from typing import Any

from cifar_fast.audit import Budget
from cifar_fast.export.card import Card
from cifar_fast.recipe import MAPPINGS, UNTYPED, Recipe, at_size, describe, list_recipes, load_recipe, settings_that
from cifar_fast.recipe.overrides import on_other_data
from cifar_fast.recipe.spec import SIDE, typed_name

NOT_IN_ID = settings_that(affects_weights=False) | {"seed", "device", "procs"}
"Settings that are not part of `recipe_id`; seed and device have columns of their own."


PLACES, CHECKSUMS = {"init", "distill"}, {"init_sha256", "distill_sha256"}
"Of weights that a run uses: what is typed, and what identifies them."


def row(card: Card) -> dict[str, Any]:
    "The row of a finished run. Accuracies as fractions, seconds, None where the run has no such figure."
    metrics, best, seconds, audit, machine = card.metrics, card.best_epoch, card.seconds, card.audit, card.machine
    gpus = f"{machine.procs} × " if machine.procs > 1 and not machine.device.startswith("cpu") else ""
    return {
        "recipe": card.name,
        "recipe_id": recipe_id(card.recipe),
        "settings": card.settings,
        "seed": card.recipe.get("seed"),
        "epochs": card.epochs,
        "accuracy": metrics and metrics.accuracy,
        "balanced_accuracy": metrics and rounded(metrics.balanced_accuracy, 6),
        "accuracy_tta": metrics and metrics.accuracy_tta,
        "accuracy_without_ema": metrics and metrics.accuracy_without_ema,
        "last_accuracy": rounded(card.last_accuracy, 6),
        "best_accuracy": best and rounded(best.accuracy, 6),
        "best_epoch": best and best.epoch,
        "split": card.split,
        "selected_on_test": card.selected_on_test,
        "images": metrics and metrics.n,
        "parameters": audit and audit.params,
        "receptive_field": audit and audit.receptive_field,
        "multiply_adds": audit and audit.macs,
        "flash": audit and audit.flash,
        "train_loss": rounded(card.last_epoch.get("train_loss"), 4),
        "seconds": seconds and rounded(seconds.training, 1),
        "seconds_epoch": seconds and rounded(seconds.epoch, 1),
        "seconds_to_85": seconds and rounded(seconds.to_85, 1),
        "data": card.data.name,
        "device": f"{gpus}{machine.device}",
        "threads": machine.threads and machine.threads * machine.procs,  # of all processes
        "precision": machine.precision,
        "compiled": machine.compiled,
        "date": card.date,
        "commit": card.commit,
    }


def rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


# ---------------------------------------------------------------- what makes two runs one experiment


def recipe_id(described: dict) -> str:
    """Eight hex digits of a described recipe: the same for all seeds and machines of an experiment.

    Values that are `Recipe`'s defaults are left out, so a new setting does not change old ids.
    """
    defaults = {f.name: plain(describe(f.default)) for f in fields(Recipe) if f.default is not MISSING}
    defaults |= {name: {} for name in MAPPINGS}
    described = {**described, "size": None} if described.get("size") == SIDE else described  # which None stands for
    # The memory format changes the order of sums, and is chosen by time: runs that differ in it are one experiment.
    values = {k: plain(v) for k, v in described.items() if k not in NOT_IN_ID | {"channels_last"}}
    values = {k: v for k, v in values.items() if k not in defaults or v != defaults[k]}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def plain(value: Any) -> Any:
    """A canonical form of a described value: 5000.0 is 5000, a callable without arguments is its path alone.

    Our own callables are named without their module, so that moving one does not change ids.
    """
    if isinstance(value, dict):
        value = {k: plain(v) for k, v in value.items()}
        return value["call"] if list(value) == ["call", "args"] and not value["args"] else value
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, str) and value.startswith("cifar_fast."):
        return value.rpartition(".")[2]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ---------------------------------------------------------------- what was typed


def changes(recipe: Recipe, base: Recipe | None = None, finds_lr: bool = False) -> str:
    """How `recipe` differs from `base`, as `key=value` words of the command line; empty where it does not.

    `base` defaults to the project's recipe that it is named after. Also empty where settings differ that the command
    line cannot set: then the recipe's file differs.
    """
    base = base or base_recipe(recipe)
    if base is None:
        return ""
    typed = []
    if recipe.data != base.data:
        typed, base = [f"data={recipe.data}"], on_other_data(base, recipe.data)
    if recipe.size != base.size:
        typed, base = [*typed, f"size={text(recipe.size)}"], at_size(base, recipe.size)
    before, after = plain(describe(base)), plain(describe(recipe))
    typeable = [f for f in fields(Recipe) if f.name in PLACES or f.name not in NOT_IN_ID | CHECKSUMS]
    differ = [f for f in typeable if before[f.name] != after[f.name]]
    if any(f.name in UNTYPED and f.name != "budget" for f in differ):
        return ""
    for f in differ:
        if f.name == "budget":
            typed += [f"budget.{k}={text(v)}" for k, v in limits(recipe).items() if v != limits(base)[k]]
            continue
        compare = changed_call if "from" in f.metadata else changed_value
        typed += compare(typed_name(f), before[f.name], after[f.name])
    return " ".join(shlex.quote(word) for word in [*typed, *(["lr=find"] if finds_lr else [])])


def limits(recipe: Recipe) -> dict[str, Any]:
    "Of its budget, by name."
    return plain(describe(recipe.budget or Budget()))


def base_recipe(recipe: Recipe) -> Recipe | None:
    "The project's recipe of a run called e.g. final or final-…; None if there is none."
    names = [n for n in list_recipes() if recipe.name == n or recipe.name.startswith(f"{n}-")]
    return load_recipe(max(names, key=len)) if names else None


def changed_value(key: str, before, after) -> list[str]:
    return [f"{key}={text(after)}"]


def changed_call(key: str, before, after) -> list[str]:
    "The callable if it differs, then the arguments that differ."
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
