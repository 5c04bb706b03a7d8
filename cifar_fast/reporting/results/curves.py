"""Published and measured accuracy by epoch; the published records are in recipes/published."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cifar_fast.export.card import Card
from cifar_fast.export.card_file import list_runs, read_card
from cifar_fast.recipe import recipes_dir
from cifar_fast.reporting import plots
from cifar_fast.reporting.results.store import ResultsError


def published_curve(name: str) -> pd.DataFrame | None:
    "The record of recipe `name`: epochs counted from 1, accuracies as fractions. None where none was published."
    records = {path.stem: path for path in (recipes_dir() / "published").glob("*.csv")}
    if name not in records:
        return None
    record = pd.read_csv(records[name])
    return pd.DataFrame({"epoch": record["epoch"] + (record["epoch"].min() == 0),  # one of them counts from 0
                         "train_accuracy": record["train_acc"] / 100, "valid_accuracy": record["valid_acc"] / 100})


def draw_published(folder: Path, card: Card, history: pd.DataFrame) -> Path | None:
    "Draw published.png in `folder`; None where no record of its recipe was published."
    record = published_curve(card.recipe_name)
    if record is None or card.recipe.get("data") != "cifar10":
        return None
    on = "selected on test" if card.selected_on_test else "held-out"
    path = folder / "published.png"
    plots.save(plots.published({f"measured ({on})": history}, record,
                               title=f"{card.recipe_name}, published and measured",
                               target=card.target_accuracy), path)
    return path


def redraw(exports: Path) -> list[Path]:
    "Redraw every published.png, from the runs in `exports`. Raises ResultsError where there is none to draw."
    paths = []
    for folder in list_runs(exports):
        if not (folder / "history.csv").is_file():
            continue
        try:
            history = pd.read_csv(folder / "history.csv")
            if "train_accuracy" not in history:
                raise ValueError("no column train_accuracy")
            paths.append(draw_published(folder, read_card(folder), history))
        except (ValueError, KeyError) as e:
            raise ResultsError(f"{folder / 'history.csv'} is no history of a run ({e}); remove it") from None
    paths = [path for path in paths if path]
    if not paths:
        raise ResultsError(f"{exports} holds no run of a recipe with a published record; "
                           f"python -m cifar_fast recipe netv2 trains one")
    return paths
