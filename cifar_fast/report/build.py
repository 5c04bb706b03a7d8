"""Everything that a run leaves to look at, from what it has in memory or from what is on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cifar_fast import plots
from cifar_fast.archs import create_arch
from cifar_fast.constraints import Audit, audit, layer_rows
from cifar_fast.data.sources import Source, load_source
from cifar_fast.evaluation import scores
from cifar_fast.files import write_text
from cifar_fast.inference import load_export
from cifar_fast.modelfiles import ExportError, read_card
from cifar_fast.predictions import NAME, Predictions, PredictionsError
from cifar_fast.report import figures
from cifar_fast.report.modelcard import model_card
from cifar_fast.report.page import page

LEFT = ("report.html", "README.md")


def report(
    stem: Path,  # exports/NAME
    card: dict,
    history: pd.DataFrame | None,
    said: Predictions | None,  # what it predicted
    images: np.ndarray | None,  # (N, H, W, 3) uint8, the pictures of `said`
    found: Audit | None = None,  # of its net
    missing: list[str] = (),  # what is not there, and why
) -> list[Path]:
    "Draw the figures of a finished run into its folder, then report.html and the model card; returns all of these."
    made, title = [], f"{card.get('name', stem.name)}, {said.on if said else 'not measured'}"
    found = found or audit(create_arch(card["arch"], len(card["vocab"])))
    rows = layer_rows(found)
    drawn = {"layers.png": figures.layers(rows, f"{card['arch']}: {found.profile.params:,} parameters, receptive field "
                                                f"{found.profile.receptive_field} px")}
    if said:
        drawn["classes.png"] = figures.classes(scores(said.probabilities, said.labels, said.vocab)["per_class"], title)
        drawn["calibration.png"] = figures.calibration(said, title)
        if images is not None:
            drawn["mistakes.png"] = figures.mistakes(said, images, title)
    for name, fig in drawn.items():
        if fig is None:  # nothing to show: no mistake was made
            (stem / name).unlink(missing_ok=True)
            continue
        plots.save(fig, stem / name)
        made.append(stem / name)
    write_text(stem / "report.html", page(card, stem, history, rows, missing))
    write_text(stem / "README.md", model_card(card))
    return [*made, *(stem / name for name in LEFT)]


def pictures_of(said: Predictions, source: Source) -> np.ndarray:
    "The pictures that were predicted, in that order."
    if said.on == "test":
        return source.test.images
    return source.train.images[said.items]


# ---------------------------------------------------------------- of a run on disk


def rebuild(stem: Path) -> tuple[list[Path], list[str]]:
    "The same of a run that is on disk: what was made, and what could not be, with the reason. Raises ExportError."
    card, missing = read_card(stem), []
    history = None
    if (stem / "history.csv").is_file():
        try:
            history = pd.read_csv(stem / "history.csv")
            on = "test (selected on test)" if card.get("protocol", "").startswith("selected on test") else "held-out"
            plots.save(plots.history(history, title=card.get("name", stem.name), valid_name=on), stem / "history.png")
        except (ValueError, KeyError) as e:
            raise ExportError(f"{stem / 'history.csv'} does not tell a run ({e}); the report needs it whole or not at "
                              f"all") from None
    else:
        missing.append(f"curves (no {stem / 'history.csv'})")
    said, images = None, None
    try:
        source = same_source(card)
        said = kept_or_made(stem, card, source)
        images = pictures_of(said, source)
    except (ExportError, PredictionsError, OSError, ValueError) as e:  # DataError is a ValueError
        missing.append(f"mistakes with pictures ({e})")
        if (stem / NAME).is_file():
            said = Predictions.load(stem / NAME)
        else:
            missing.append("classes and calibration (no predictions)")
    if said:
        counts = scores(said.probabilities, said.labels, said.vocab)["confusion"]
        plots.save(plots.confusion(counts, said.vocab, f"{card.get('name', stem.name)}, {said.on}"),
                   stem / "confusion.png")
    if not (stem / "augmented.png").is_file():
        missing.append("what the net was fed (drawn while it trains)")
    return report(stem, card, history, said, images, missing=missing), missing


def same_source(card: dict) -> Source:
    "The dataset that the card names, if it is still the same. Raises ExportError, DataError."
    recipe, data = card.get("recipe") or {}, card.get("data") or {}
    if not isinstance(recipe.get("data"), str):
        raise ExportError("its card does not say what it was trained on")
    source = load_source(recipe["data"], seed=recipe.get("seed", 42))
    if source.fingerprint != data.get("fingerprint"):
        raise ExportError(f"the pictures of {recipe['data']} are others than those it was measured on")
    return source


def kept_or_made(stem: Path, card: dict, source: Source) -> Predictions:
    "What the run kept; else predicted again on the test pictures, and kept. Raises PredictionsError, ExportError."
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
