"""Everything that a run leaves to look at, from what it has in memory or from what is on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cifar_fast.audit import Audit, audit, layer_rows
from cifar_fast.data.sources import Source, load_source
from cifar_fast.export.card import target_accuracy
from cifar_fast.export.files import ExportError, read_full_card
from cifar_fast.export.metrics import scores_of_predicted
from cifar_fast.export.predictions import NAME, Predictions, PredictionsError
from cifar_fast.export.predictor import load_export
from cifar_fast.models import create_model
from cifar_fast.reporting import plots
from cifar_fast.reporting.report import figures
from cifar_fast.reporting.report.modelcard import model_card
from cifar_fast.reporting.report.page import page
from cifar_fast.reporting.results import draw_published
from cifar_fast.utils.files import write_text

LEFT = ("report.html", "README.md")

ELSEWHERE = {  # figures that `redraw` leaves as they are: who draws them
    "mistakes.png": "shows images of the dataset: report draws it",
    "augmented.png": "drawn while it trains",
    "learning_rate.png": "drawn while it trains, of every step",
}


def report(
    stem: Path,  # exports/NAME
    card: dict,
    history: pd.DataFrame | None,
    said: Predictions | None,  # what it predicted
    images: np.ndarray | None,  # (N, H, W, 3) uint8, the images of `said`
    found: Audit | None = None,  # of its net
    missing: list[str] = (),  # what is not there, and why
) -> list[Path]:
    "Draw the figures of a finished run into its folder, then report.html and the model card; returns all of these."
    found = found or audit(create_model(card["arch"], len(card["vocab"])))
    made = draw(stem, card, said, images, found)
    write_text(stem / "report.html", page(card, stem, history, layer_rows(found), missing))
    write_text(stem / "README.md", model_card(card))
    return [*made, *(stem / name for name in LEFT)]


def draw(stem: Path, card: dict, said: Predictions | None, images: np.ndarray | None, found: Audit) -> list[Path]:
    "The figures of the net and of what it predicted, as `report` takes them; returns those that were made."
    made, title = [], f"{card.get('name', stem.name)}, {said.on if said else 'not measured'}"
    drawn = {"layers.png": figures.layers(layer_rows(found), f"{card['arch']}: {found.profile.params:,} parameters, "
                                                             f"receptive field {found.profile.receptive_field} px")}
    if said:
        drawn["classes.png"] = figures.classes(measured(said)["per_class"], title)
        drawn["calibration.png"] = figures.calibration(said, title)
        if images is not None:
            drawn["mistakes.png"] = figures.most_confident_errors(said, images, title)
    for name, fig in drawn.items():
        if fig is None:  # nothing to show: no mistake was made
            (stem / name).unlink(missing_ok=True)
            continue
        plots.save(fig, stem / name)
        made.append(stem / name)
    return made


def measured(said: Predictions) -> dict:
    "From the classes themselves: two probabilities that are one in float16 would name another."
    return scores_of_predicted(said.predicted, said.labels, said.vocab)


def images_of(said: Predictions, source: Source) -> np.ndarray:
    "The images that were predicted, in that order. Raises PredictionsError where the dataset lacks some of them."
    images = source.test.images if said.on == "test" else source.train.images
    last = len(said.labels) - 1 if said.items is None else said.items.max()
    if last >= len(images):
        raise PredictionsError(f"the predictions are of image {last:,}, and {source.name} has only {len(images):,}")
    return images[:last + 1] if said.items is None else images[said.items]


# ---------------------------------------------------------------- of a run on disk


def rebuild(stem: Path) -> tuple[list[Path], list[str]]:
    "The same of a run that is on disk: what was made, and what could not be, with the reason. Raises ExportError."
    card, missing = read_full_card(stem), []
    history = draw_curves(stem, card)
    if history is None:
        missing.append(f"curves (no {stem / 'history.csv'})")
    said, images = None, None
    try:
        source = same_source(card)
        said = kept_or_made(stem, card, source)
        images = images_of(said, source)
    except (ExportError, PredictionsError, OSError, ValueError) as e:  # DataError is a ValueError
        missing.append(f"mistakes with images ({e})")
        if (stem / NAME).is_file():
            said = Predictions.load(stem / NAME)
        else:
            missing.append("classes and calibration (no predictions)")
    drawn = [stem / "history.png"] if history is not None else []
    if said:
        drawn.append(draw_confusion(stem, card, measured(said)["confusion"]))
    if not (stem / "augmented.png").is_file():
        missing.append("what the net was fed (drawn while it trains)")
    return [*drawn, *report(stem, card, history, said, images, missing=missing)], missing


def redraw(stem: Path) -> tuple[list[Path], list[str]]:
    """The figures of a run that need nothing but its .json, history.csv and predictions.npz, as the run drew them.

    No dataset is opened, and none downloaded. Returns what was made, and what was not, with the reason. Raises
    ExportError, PredictionsError.
    """
    card, made, left = read_full_card(stem), [], []
    history, told = draw_curves(stem, card), card.get("recipe")
    if history is None:
        left.append("history.png (no history.csv)")
    else:
        made.append(stem / "history.png")
        if isinstance(told, dict) and (path := draw_published(stem, card.get("name", stem.name), told, history)):
            made.append(path)
    said = Predictions.load(stem / NAME) if (stem / NAME).is_file() else None
    if said is None:
        left.append(f"classes.png, calibration.png (no {NAME})")
    found = measured(said) if said else card.get("test") or card.get("held_out") or {}
    if counts := found.get("confusion"):
        made.append(draw_confusion(stem, card, counts))
    made += draw(stem, card, said, None, audit(create_model(card["arch"], len(card["vocab"]))))
    left += [f"{name} ({why})" for name, why in ELSEWHERE.items() if (stem / name).is_file()]
    return made, left


def draw_curves(stem: Path, card: dict) -> pd.DataFrame | None:
    "Leave history.png; returns the history, None where the run has none. Raises ExportError."
    if not (stem / "history.csv").is_file():
        return None
    on = "test (selected on test)" if card.get("protocol", "").startswith("selected on test") else "held-out"
    try:
        history = pd.read_csv(stem / "history.csv")
        if lacking := {"epoch", "train_loss", "train_accuracy"} - set(history):
            raise ValueError(f"no column {', '.join(sorted(lacking))}")
        plots.save(plots.history(history, title=card.get("name", stem.name), target=target_accuracy(card),
                                 valid_name=on), stem / "history.png")
    except (ValueError, KeyError) as e:
        raise ExportError(f"{stem / 'history.csv'} does not tell a run ({e}); the report needs it whole or not at "
                          f"all") from None
    return history


def draw_confusion(stem: Path, card: dict, counts: list[list[int]]) -> Path:
    on = card.get("on") or ("test" if card.get("test") else "held-out")  # the first cards had no such word
    path = stem / "confusion.png"
    plots.save(plots.confusion(counts, card["vocab"], f"{card.get('name', stem.name)}, {on}"), path)
    return path


def same_source(card: dict) -> Source:
    "The dataset that the card names, if it is still the same. Raises ExportError, DataError."
    recipe, data = card.get("recipe") or {}, card.get("data") or {}
    if not isinstance(recipe.get("data"), str):
        raise ExportError("its card does not say what it was trained on")
    source = load_source(recipe["data"], seed=recipe.get("seed", 42))
    if source.fingerprint != data.get("fingerprint"):
        raise ExportError(f"the images of {recipe['data']} are others than those it was measured on")
    return source


def kept_or_made(stem: Path, card: dict, source: Source) -> Predictions:
    "What the run kept; else predicted again on the test images, and kept. Raises PredictionsError, ExportError."
    if (stem / NAME).is_file():
        return Predictions.load(stem / NAME)
    if not card.get("test") or source.test is None:
        raise ExportError("it was measured on a held-out part of train, and did not keep what it predicted")
    exported = load_export(stem)
    probs = exported.predict(source.test.images)
    said = Predictions(np.asarray(source.test.labels), probs.argmax(1), probs, tuple(source.vocab),
                       f"{source.fingerprint}/test", "test")
    said.save(stem / NAME)
    return said
