"""Everything that a run shows, from what it has in memory or from what is on disk."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cifar_fast.audit import Audit, audit, layer_rows
from cifar_fast.data.sources import Source, image_settings, load_source
from cifar_fast.export.calibration import confidence_scores, tempered
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.evaluate import other_copy, other_copy_text
from cifar_fast.export.files import WEIGHTS
from cifar_fast.export.metrics import scores_of_predicted
from cifar_fast.export.predictions import NAME, Predictions, PredictionsError
from cifar_fast.export.predictor import load_export
from cifar_fast.models import create_model
from cifar_fast.reporting import plots
from cifar_fast.reporting.report import figures
from cifar_fast.reporting.report.corrupted import figure_of_corruptions
from cifar_fast.reporting.report.errors import ErrorsFolder, error_rows, lay_out
from cifar_fast.reporting.report.modelcard import model_card
from cifar_fast.reporting.report.page import page
from cifar_fast.reporting.results import draw_published
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import write_text

TEXTS = ("report.html", "README.md")

OTHERS = {  # figures that `redraw` does not draw → why
    "mistakes.png": "shows images of the dataset: report draws it",
    "corrupted.png": "shows images of the dataset: evaluate --corruptions draws it",
    "duplicates.png": "shows images of the dataset: duplicates draws it",
    "augmented.png": "drawn during training",
    "learning_rate.png": "drawn during training, of every step",
}


def report(
    folder: Path,
    card: Card,
    history: pd.DataFrame | None,
    predicted: Predictions | None,
    images: np.ndarray | None,  # (N, H, W, 3) uint8, those of `predicted`
    audited: Audit | None = None,  # of its model
    missing: list[str] = (),  # what is missing, and why
) -> list[Path]:
    "Draw the figures of a finished run into its folder, then report.html and the model card; returns all of these."
    audited = audited or audit_of(card)
    paths = draw(folder, card, predicted, images, audited)
    shown = predicted and calibrated(predicted, card)
    confidence = shown and confidence_scores(shown.probabilities, shown.correct, card.temperature, shown.labels)
    write_text(folder / "report.html", page(card, folder, history, layer_rows(audited), missing,
                                            error_rows(shown) if shown else None, confidence))
    write_text(folder / "README.md", model_card(card, (folder / WEIGHTS).is_file()))
    return [*paths, *(folder / name for name in TEXTS)]


def renew_model_card(folder: Path) -> None:
    "Write the model card of a run again, after something was added to its card. Raises ExportError."
    write_text(folder / "README.md", model_card(read_card(folder), (folder / WEIGHTS).is_file()))


def audit_of(card: Card) -> Audit:
    "Of the architecture, at the size of the run."
    return audit(create_model(card.arch, len(card.vocab), card.size, card.widths), input_size=(3, card.size, card.size))


def draw(folder: Path, card: Card, predicted: Predictions | None, images: np.ndarray | None,
         audited: Audit) -> list[Path]:
    "The figures of the model and of its predictions, as `report` takes them; returns those that were made."
    paths, title = [], f"{card.name or folder.name}, {predicted.on if predicted else 'not measured'}"
    figs = {"layers.png": figures.layers(layer_rows(audited), f"{card.arch}: {audited.profile.params:,} parameters, "
                                                              f"receptive field {audited.profile.receptive_field} px")}
    if predicted:
        predicted = calibrated(predicted, card)
        figs["classes.png"] = figures.classes(measured(predicted)["per_class"], title)
        figs["calibration.png"] = figures.calibration(predicted, title)
        if images is not None:
            figs["mistakes.png"] = figures.most_confident_errors(predicted, images, title)
    if card.corruptions:
        figs["corruptions.png"] = figure_of_corruptions(card.corruptions, card.name or folder.name)
    for name, fig in figs.items():
        if fig is None:  # no errors to show
            (folder / name).unlink(missing_ok=True)
            continue
        plots.save(fig, folder / name)
        paths.append(folder / name)
    return paths


def calibrated(predicted: Predictions, card: Card) -> Predictions:
    "With the probabilities at the card's temperature; a file of predictions has those of the trained model itself."
    saved = predicted.probabilities.astype(np.float16).astype(np.float32)  # a report that is rebuilt has no others
    return replace(predicted, probabilities=tempered(saved, card.temperature))


def measured(predicted: Predictions) -> dict:
    "Scores from the predicted classes; with ties in float16 the argmax of the probabilities may be another class."
    return scores_of_predicted(predicted.predicted, predicted.labels, predicted.vocab)


def images_of(predicted: Predictions, source: Source) -> np.ndarray:
    "The images that were predicted, in that order. Raises PredictionsError where the dataset lacks some of them."
    there = len(source.rows("test") if predicted.items is None else source.labels)
    last = len(predicted.labels) - 1 if predicted.items is None else predicted.items.max()
    if last >= there:
        raise PredictionsError(f"the predictions are of image {last:,}, and {source.name} has only {there:,}")
    if predicted.items is None:
        return source.test.images[:last + 1]
    arrays, places = source.locate(predicted.items)
    return arrays.images[places]


def paths_of(predicted: Predictions, source: Source) -> tuple[str, ...] | None:
    "The files of the images that were predicted, in that order; None where they were no files."
    if predicted.items is None:
        return source.test.paths()
    arrays, places = source.locate(predicted.items)
    return arrays.paths(places)


# ---------------------------------------------------------------- of a run on disk


def rebuild(folder: Path) -> tuple[list[Path], list[str]]:
    """`report` for a run on disk: the files written, and what is missing, each with the reason.

    Images are shown if the dataset is still available; all else comes from the run's own files. Raises ExportError.
    """
    card, missing = read_card(folder), []
    history = draw_curves(folder, card)
    if history is None:
        missing.append(f"curves (no {folder / 'history.csv'})")
    predicted, images = None, None
    try:
        source = same_source(card)
        predicted = saved_or_new(folder, card, source)
        images = images_of(predicted, source)
    except (CifarFastError, OSError) as e:
        missing.append(f"mistakes with images ({e})")
        if (folder / NAME).is_file():
            predicted = Predictions.load(folder / NAME)
        else:
            missing.append("classes and calibration (no predictions)")
    paths = [folder / "history.png"] if history is not None else []
    if predicted:
        paths.append(draw_confusion(folder, card, measured(predicted)["confusion"]))
    if not (folder / "augmented.png").is_file():
        missing.append("a training batch (drawn during training)")
    return [*paths, *report(folder, card, history, predicted, images, missing=missing)], missing


def redraw(folder: Path) -> tuple[list[Path], list[str]]:
    """Redraw the figures that need only the run's card, history.csv and predictions.npz.

    No dataset is opened, and none downloaded. Returns what was drawn, and what was not, with the reason. Raises
    ExportError, PredictionsError.
    """
    card, paths, left_out = read_card(folder), [], []
    history = draw_curves(folder, card)
    if history is None:
        left_out.append("history.png (no history.csv)")
    else:
        paths += [folder / "history.png", *filter(None, [draw_published(folder, card, history)])]
    predicted = Predictions.load(folder / NAME) if (folder / NAME).is_file() else None
    if predicted is None:
        left_out.append(f"classes.png, calibration.png (no {NAME})")
    counts = measured(predicted)["confusion"] if predicted else card.metrics and card.metrics.confusion
    if counts:
        paths.append(draw_confusion(folder, card, counts))
    paths += draw(folder, card, predicted, None, audit_of(card))
    left_out += [f"{name} ({why})" for name, why in OTHERS.items() if (folder / name).is_file()]
    return paths, left_out


def draw_curves(folder: Path, card: Card) -> pd.DataFrame | None:
    "Draw history.png; returns the history, or None if the run has none. Raises ExportError."
    if not (folder / "history.csv").is_file():
        return None
    try:
        history = pd.read_csv(folder / "history.csv")
        if lacking := {"epoch", "train_loss", "train_accuracy"} - set(history):
            raise ValueError(f"no column {', '.join(sorted(lacking))}")
        plots.save(plots.history(history, title=card.name or folder.name, target=card.target_accuracy,
                                 valid_name=card.validated_on), folder / "history.png")
    except (ValueError, KeyError, TypeError) as e:
        raise ExportError(f"{folder / 'history.csv'} is no history of a run ({e}); restore or remove it") from None
    return history


def draw_confusion(folder: Path, card: Card, counts: list[list[int]]) -> Path:
    path = folder / "confusion.png"
    plots.save(plots.confusion(counts, card.vocab, f"{card.name or folder.name}, {card.split}"), path)
    return path


def same_source(card: Card) -> Source:
    "The dataset that the card names, if it is still the same; warns of `other_copy`. Raises ExportError, DataError."
    if not card.recipe.get("data"):
        raise ExportError("its card does not say what it was trained on")
    source = load_source(card.recipe["data"], seed=card.recipe.get("seed", 42), **image_settings(card.recipe))
    if other_copy(card, source):
        warnings.warn(other_copy_text(source), stacklevel=2)
    elif source.fingerprint != card.data.fingerprint:
        raise ExportError(f"the images of {card.recipe['data']} have changed since it was measured, or another "
                          "version of Pillow decodes them otherwise; restore them, or train again")
    return source


def errors_folder(folder: Path, target: Path) -> ErrorsFolder:
    "Lay out all wrong images of a run on disk in `target`. Raises CifarFastError where its dataset is gone."
    card = read_card(folder)
    source = same_source(card)
    predicted = calibrated(saved_or_new(folder, card, source), card)  # as the report has it
    return lay_out(target, card, predicted, images_of(predicted, source), paths_of(predicted, source))


def saved_or_new(folder: Path, card: Card, source: Source) -> Predictions:
    "The saved predictions; else predicted again on the test images and saved. Raises PredictionsError, ExportError."
    if (folder / NAME).is_file():
        return Predictions.load(folder / NAME)
    if card.split != "test" or source.test is None:
        raise ExportError("it was measured on a held-out part of train, and its predictions were not saved")
    probs = replace(load_export(folder), temperature=1.0).predict(source.test.images)
    predicted = Predictions(np.asarray(source.test.labels), probs.argmax(1), probs, tuple(source.vocab),
                            f"{source.fingerprint}/test", "test", files=source.test.files())
    predicted.save(folder / NAME)
    return predicted
