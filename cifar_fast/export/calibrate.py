"""`calibrate`: a temperature for a saved run, kept in its card, with which every probability is made from then on.

The weights stay as they are, and with them their checksum; learner.pkl has the temperature in the activation of its
loss, of which fastai makes probabilities.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cifar_fast.data.block import split_rows
from cifar_fast.data.sources import Source
from cifar_fast.export.calibration import CalibrationError, calibration_error, cross_fitted, fit_temperature, softmax
from cifar_fast.export.card import Calibration, Card, read_card
from cifar_fast.export.files import LEARNER
from cifar_fast.export.predictor import Predictor, load_export, rebuild_pickle
from cifar_fast.export.trust import trust
from cifar_fast.utils.text import printable


def calibrate(folder: Path, source: Source, own: bool) -> Card:
    """Fit a temperature and save it; returns the new card. Raises CalibrationError, ExportError.

    `source`: the images that the run was trained on, of which its held-out ones are taken; with `own` other labelled
    images, of which all are.
    """
    model = load_export(folder)
    images, labels, on = own_images(model, source) if own else held_out_images(model.card, source)
    return save(folder, replace(model.card, calibration=measured(model, images, labels, on)))


def undo(folder: Path) -> Card:
    "Take the temperature out of the run again; returns its card."
    return save(folder, replace(read_card(folder), calibration=None))


def save(folder: Path, card: Card) -> Card:
    card.write(folder)
    if (folder / LEARNER).exists():
        trust(rebuild_pickle(folder))
    return card


def measured(model: Predictor, images: np.ndarray, labels: np.ndarray, on: str) -> Calibration:
    logits = model.logits(images)
    correct = logits.argmax(1) == labels
    return Calibration(temperature=fit_temperature(logits, labels), images=on, n=len(labels),
                       error_before=calibration_error(softmax(logits), correct),
                       error_after=calibration_error(cross_fitted(logits, labels), correct),
                       date=time.strftime("%Y-%m-%d", time.gmtime()))


def held_out_images(card: Card, source: Source) -> tuple[np.ndarray, np.ndarray, str]:
    "(images, labels, 'held-out') that the run validated on and did not train on; never those of the test set."
    recipe = card.recipe
    other = "or calibrate on labelled images of your own: calibrate EXPORT data=FOLDER"
    if recipe.get("validate_on") == "test":
        raise CalibrationError(f"{card.name} validated on the test set, which must stay unseen; train it with "
                               f"validate_on=held_out valid=0.1, {other}")
    _, rows = split_rows(source, recipe.get("valid", 0), "held_out", recipe.get("seed", 42))
    if not len(rows):
        raise CalibrationError(f"{card.name} was trained with valid=0 and has no held-out images, and images that it "
                               f"was trained on would make it too sure; train it with valid=0.1, {other}")
    return *gathered(source, rows), "held-out"


def own_images(model: Predictor, source: Source) -> tuple[np.ndarray, np.ndarray, str]:
    "(images, labels, name) of all images of another dataset, its classes found by name."
    if model.card and source.fingerprint == model.card.data.fingerprint:
        raise CalibrationError(f"{source.name} is what the run was trained and tested on; leave out data= to calibrate "
                               f"on its held-out images, or name a folder of other ones")
    if unknown := [name for name in source.vocab if name not in model.vocab]:
        raise CalibrationError(f"{source.name} has the class {printable(unknown[0])}, which the model does not know; "
                               f"it knows {', '.join(map(printable, model.vocab[:20]))}")
    images, labels = gathered(source, np.arange(sum(map(len, source.splits.values()))))
    return images, np.array([model.vocab.index(name) for name in source.vocab])[labels], source.name


def gathered(source: Source, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    "(images, labels) of these row numbers, split by split."
    places = [(part, rows[np.isin(rows, source.rows(name))] - source.rows(name)[0])
              for name, part in source.splits.items()]
    return (np.concatenate([part.images[here] for part, here in places]),
            np.concatenate([part.labels[here] for part, here in places]))
