"""What a run is here: a name or a stem, the card in its .json, and what it predicted in the folder beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cifar_fast.export.files import export_files, read_card
from cifar_fast.export.predictions import NAME, Predictions
from cifar_fast.reporting.results import facts, read, recipe_id, row, summarize
from cifar_fast.reporting.results.store import FIGURES
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.text import nearest


class CompareError(CifarFastError):
    "Runs that cannot be compared, or not so; the message names them and the next step."


@dataclass(frozen=True)
class Run:
    "A finished run; its weights are not needed."

    name: str  # as tables call it: its file's name, with the folder where two runs share that
    stem: Path  # exports/final
    card: dict

    def predictions(self) -> Predictions:
        "Raises PredictionsError, which names the command that makes them."
        return Predictions.load(self.stem / NAME)

    @property
    def selected_on_test(self) -> bool:
        return str(self.card.get("protocol")).startswith("selected on test")


def find_runs(names: list[str], exports: Path) -> list[Run]:
    "The runs of these names or stems, in order. Raises CompareError, ExportError."
    stems = [locate(name, exports) for name in names]
    for i, stem in enumerate(stems):
        if any(stem.resolve() == other.resolve() for other in stems[:i]):
            raise CompareError(f"{stem} is named twice; name different runs")
    short = [stem.name for stem in stems]
    return [Run(stem.name if short.count(stem.name) == 1 else str(stem), stem, read_card(stem)) for stem in stems]


def locate(name: str, exports: Path) -> Path:
    "exports/final of `exports/final`, of any file of it, or of `final` alone. Raises CompareError."
    given = export_files(name)[1]
    path = given if given.is_file() or given.parent != Path(".") else exports / given.name
    if path.is_file():
        return path.with_suffix("")
    if not path.parent.is_dir():
        raise CompareError(f"no run {name}: there is no folder {path.parent}; python -m cifar_fast recipe final leaves "
                           f"a run in exports, --exports names another folder")
    there = sorted(p.stem for p in path.parent.glob("*.json"))
    raise CompareError(f"no run {path.with_suffix('')}{nearest(path.stem, there)}: there is no {path}; "
                       + (f"there are {', '.join(there)}" if there else
                          "python -m cifar_fast recipe NAME makes one, recipes lists the names"))


# ---------------------------------------------------------------- a line each


def lines_of_runs(runs: list[Run]) -> pd.DataFrame:
    "A line for each run from its card, with the columns of `results.summarize`. Raises CompareError."
    rows = [row_of(run) for run in runs]
    return summarize(pd.DataFrame([{k: "" if v is None else str(v) for k, v in r.items()} for r in rows]), {})


def row_of(run: Run) -> dict:
    "The run's row, as it stands in results.csv but for what was typed. Raises CompareError."
    again = f"restore it, or python -m cifar_fast recipe {run.name} writes it anew"
    try:
        found = row(run.card, "")
    except (KeyError, TypeError, AttributeError) as e:
        raise CompareError(f"{run.stem}.json does not tell a run ({type(e).__name__}: {e}); {again}") from None
    for figure in FIGURES:
        value = found[figure]
        if value is not None and not (type(value) in (int, float) and math.isfinite(value)):
            raise CompareError(f"{run.stem}.json: {figure} is {value!r}, which is no number; {again}")
    return {**found, "recipe": run.name}


def lines_of_recipes(path: Path) -> pd.DataFrame:
    "A line for each recipe that has runs in results.csv, means over its seeds. Raises ResultsError, CompareError."
    lines = summarize(read(path), {name: fact["recipe_id"] for name, fact in facts().items()})
    if not (lines["n"] > 0).any():
        raise CompareError(f"{path} holds no run yet; python -m cifar_fast recipe final adds one")
    return lines[lines["n"] > 0].reset_index(drop=True)


def experiment_of(run: Run) -> pd.Series | None:
    "The line of this run's experiment over its seeds, from the results.csv beside it; None where it has no row there."
    path, told = run.stem.parent / "results.csv", run.card.get("recipe")
    if not path.is_file() or not isinstance(told, dict):
        return None
    line = summarize(read(path), {run.name: recipe_id(told)}).iloc[0]
    return line if line["current"] else None  # else it is another experiment of that name
