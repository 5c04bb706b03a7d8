"""What a run is here: a name or a folder, its card, and its predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from cifar_fast.export.card import Card
from cifar_fast.export.card_file import missing, read_card
from cifar_fast.export.card_format import NAME as CARD
from cifar_fast.export.card_parts import Metrics
from cifar_fast.export.files import run_folder
from cifar_fast.export.load import OPEN
from cifar_fast.export.metrics import scores_of_predicted
from cifar_fast.export.predictions import NAME, Predictions
from cifar_fast.reporting.results import ResultsError, facts, read, read_all, recipe_id, row, summarize
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import expand_path


class CompareError(CifarFastError):
    "Runs that cannot be compared, or not so; the message names them and the next step."


@dataclass(frozen=True)
class Run:
    "A finished run; its weights are not needed."

    name: str  # as tables call it: its folder's name, with the path where two runs share that
    folder: Path  # exports/final
    card: Card
    exported: Predictions | None = None  # by one of its exported files; None: those that the run saved

    def predictions(self) -> Predictions:
        "Raises PredictionsError, which names the command that makes them."
        return self.exported or Predictions.load(self.folder / NAME)


def of_file(path: Path) -> Run:
    "An .onnx or .tflite file in the folder of its run, measured on the images that the run was. Raises CifarFastError."
    from cifar_fast.reporting.report.build import images_of, same_source

    folder, model = path.parent, OPEN[path.suffix](path)
    saved, card = Predictions.load(folder / NAME), read_card(folder)
    if model.card.sha256 != card.sha256:
        raise CompareError(f"{path} was made from other weights than those of {folder}: python -m cifar_fast export "
                           f"{folder} --to all makes its files again")
    probabilities = model.predict(images_of(saved, same_source(card)))
    exported = replace(saved, predicted=probabilities.argmax(1), probabilities=probabilities)
    metrics = Metrics(**scores_of_predicted(exported.predicted, exported.labels, exported.vocab))
    return Run(f"{folder.name}/{path.name}", path, replace(card, metrics=metrics), exported)


def find_runs(names: list[str], exports: Path) -> list[Run]:
    "The runs of these names or folders, in order. Raises CompareError, ExportError."
    folders = [found if (found := expand_path(name)).suffix in OPEN else locate(name, exports) for name in names]
    for i, folder in enumerate(folders):
        if any(folder.resolve() == other.resolve() for other in folders[:i]):
            raise CompareError(f"{folder} is named twice; name different runs")
    short = [folder.name for folder in folders]
    return [of_file(folder) if folder.suffix in OPEN else
            Run(folder.name if short.count(folder.name) == 1 else str(folder), folder, read_card(folder))
            for folder in folders]


def locate(name: str, exports: Path) -> Path:
    "exports/final of `exports/final`, of a file in it, or of `final` alone. Raises CompareError."
    given = run_folder(name)
    folder = given if (given / CARD).is_file() or given.parent != Path(".") else exports / given.name
    if (folder / CARD).exists():
        return folder
    if not folder.parent.is_dir():
        raise CompareError(f"no run {name}: there is no folder {folder.parent}; python -m cifar_fast recipe final "
                           f"makes a run in exports, --exports names another folder")
    raise CompareError(missing(folder))


# ---------------------------------------------------------------- a line each


def lines_of_runs(runs: list[Run]) -> pd.DataFrame:
    "A line for each run from its card, with the columns of `results.summarize`."
    rows = [{**row(run.card), "recipe": run.name, "recipe_id": run.name,  # a line each, whatever it is
             **({"last_accuracy": run.card.metrics.accuracy, "best_accuracy": None} if run.exported else {})}
            for run in runs]
    return summarize(pd.DataFrame([{k: "" if v is None else str(v) for k, v in r.items()} for r in rows]), {})


def lines_of_recipes(
    path: Path,  # one table, or a folder of them
) -> pd.DataFrame:
    "A line for each recipe that has runs, means over its seeds. Raises ResultsError, CompareError."
    rows = read(path) if path.is_file() else read_all(path)
    lines = summarize(rows, {name: fact["recipe_id"] for name, fact in facts().items()})
    if not (lines["n"] > 0).any():
        raise CompareError(f"{path} holds no run yet; python -m cifar_fast recipe final adds one")
    return lines[lines["n"] > 0].reset_index(drop=True)


def experiment_of(run: Run) -> pd.Series | None:
    "The line of this run's experiment over its seeds, from the tables beside it; None where it has no row there."
    if not run.card.recipe:
        return None
    try:
        rows = read_all(run.folder.parent)
    except ResultsError:
        return None
    line = summarize(rows, {run.name: recipe_id(run.card.recipe)}).iloc[0]
    return line if line["current"] else None  # else it is another experiment of that name
