"""Published epoch-by-epoch records beside measured ones; the records lie with the recipes, in recipes/published."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from cifar_fast.recipe import list_recipes, recipes_dir
from cifar_fast.reporting import plots
from cifar_fast.reporting.results.store import ResultsError


def published_curve(name: str) -> pd.DataFrame | None:
    "The record of recipe `name`: epochs counted from 1, accuracies as fractions. None where none was published."
    path = recipes_dir() / "published" / f"{name}.csv"
    if not path.is_file():
        return None
    record = pd.read_csv(path)
    return pd.DataFrame({"epoch": record["epoch"] + (record["epoch"].min() == 0),  # one of them counts from 0
                         "train_accuracy": record["train_acc"] / 100, "valid_accuracy": record["valid_acc"] / 100})


def draw_published(folder: Path, name: str, recipe: dict, history: pd.DataFrame) -> Path | None:
    "Write published.png to `folder`; None where the (described) recipe has no published record of CIFAR-10."
    record = published_curve(name)
    if record is None or recipe["data"] != "cifar10":
        return None
    on = "selected on test" if recipe["validate_on"] == "test" else "held-out"
    path = folder / "published.png"
    plots.save(plots.published({f"measured ({on})": history}, record, title=f"{name}, published and measured",
                               target=recipe.get("target")), path)
    return path


def redraw(exports: Path) -> list[Path]:
    "Every published.png again, from the histories in `exports`. Raises ResultsError where there is none to draw."
    made = []
    for name in list_recipes():
        folder = exports / name
        if not (folder / "history.csv").is_file():
            continue
        try:
            recipe = json.loads((folder / "recipe.json").read_text("utf-8"))
            made.append(draw_published(folder, name, recipe, pd.read_csv(folder / "history.csv")))
        except (ValueError, KeyError) as e:
            raise ResultsError(f"{folder}: recipe.json and history.csv do not tell a run ({e}); "
                               f"python -m cifar_fast recipe {name} writes them anew") from None
    made = [path for path in made if path]
    if not made:
        raise ResultsError(f"{exports} holds no NAME/history.csv of a recipe with a published record; "
                           f"python -m cifar_fast recipe netv2 leaves one")
    return made
