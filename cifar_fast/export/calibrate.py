"""`calibrate`: a temperature for a saved run, kept in its card, with which every probability is made from then on.

The weights stay as they are, and with them their checksum; learner.pkl has the temperature in the activation of its
loss, of which fastai makes probabilities.
"""

from __future__ import annotations

import os
import shlex
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from cifar_fast.data.block import split_rows
from cifar_fast.data.sources import Source, same_data
from cifar_fast.export.calibration import (
    CalibrationError,
    calibration_error,
    cross_fitted,
    fit_temperature,
    log_loss,
    softmax,
)
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_parts import Calibration
from cifar_fast.export.convert import with_temperature
from cifar_fast.export.evaluate import evaluate
from cifar_fast.export.files import LEARNER, stale_name
from cifar_fast.export.predictor import Predictor, load_export, rebuild_pickle
from cifar_fast.export.trained import read_trained
from cifar_fast.export.trust import trust
from cifar_fast.utils.text import printable


def calibrate(
    folder: Path,
    source: Source | None = None,  # the images that the run was trained on, of which the held-out ones are taken; or
    data: str | None = None,  # other labelled images, of which all are: a name, a folder or a table
    columns: Mapping[str, str] | None = None,  # of the table
) -> Card:
    "Fit a temperature and save it; returns the new card. Raises CalibrationError, ExportError, DataError."
    model = load_export(folder)
    logits, labels, on = (own_images(model, data, columns, read_trained(folder)) if data
                          else held_out_images(model, source))
    found = fitted(logits, labels, on)
    if found.error_after >= found.error_before:
        raise CalibrationError(f"{folder}: no temperature improves it on {found.n:,} images (calibration error "
                               f"{found.error_before:.1%} without, {found.error_after:.1%} with one); nothing was "
                               f"changed. Calibrate on more images: data=FOLDER")
    return save(folder, found)


def undo(folder: Path) -> Card:
    "Take the temperature out of the run again; returns its card. Raises CalibrationError where it has none."
    if not read_card(folder).calibration:
        raise CalibrationError(f"{folder} was not calibrated, so there is no temperature to take out")
    return save(folder, None)


def save(folder: Path, calibration: Calibration | None) -> Card:
    card = read_card(folder)  # again: other commands may have written it while the temperature was fitted
    targets = {name: row.target for name, row in card.exported.items()}
    card, stale = with_temperature(folder, replace(card, calibration=calibration))
    card.write(folder)
    for name in stale:
        if (folder / name).exists():  # nobody should take it for the run as it is now
            os.replace(folder / name, folder / stale_name(name))
            warnings.warn(f"{folder / name} has the former temperature inside, so it is {stale_name(name)} now; "
                          f"python -m cifar_fast export {shlex.quote(str(folder))} --to {targets[name]} makes it again",
                          stacklevel=2)
    if (folder / LEARNER).exists():
        trust(rebuild_pickle(folder))
    return card


def fitted(logits: np.ndarray, labels: np.ndarray, on: str) -> Calibration:
    correct, temperature = logits.argmax(1) == labels, fit_temperature(logits, labels)
    before, after = softmax(logits), cross_fitted(logits, labels)
    return Calibration(temperature=temperature, images=on, n=len(labels),
                       error_before=calibration_error(before, correct), error_after=calibration_error(after, correct),
                       log_loss_before=log_loss(before, labels), log_loss_after=log_loss(after, labels),
                       date=time.strftime("%Y-%m-%d", time.gmtime()))


def held_out_images(model: Predictor, source: Source) -> tuple[np.ndarray, np.ndarray, str]:
    "(logits, labels, 'held-out') of what the run validated on and did not train on; never of the test set."
    card, recipe = model.card, model.card.recipe
    other = "or calibrate on labelled images of your own: calibrate EXPORT data=FOLDER"
    if recipe.get("validate_on") == "test":
        raise CalibrationError(f"{card.name} validated on the test set, which must stay unseen; train it with "
                               f"validate_on=held_out valid=0.1, {other}")
    _, rows = split_rows(source, recipe.get("valid", 0), "held_out", recipe.get("seed", 42))
    if not len(rows):
        raise CalibrationError(f"{card.name} was trained with valid=0 and has no held-out images, and images that it "
                               f"was trained on would make it too sure; train it with valid=0.1, {other}")
    places = [(part, rows[np.isin(rows, source.rows(name))] - source.rows(name)[0])
              for name, part in source.splits.items()]
    logits = [model.logits(part.images[here]) for part, here in places if len(here)]
    return np.concatenate(logits), np.concatenate([part.labels[here] for part, here in places]), "held-out"


def own_images(model: Predictor, data: str, columns: Mapping[str, str] | None,
               trained: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, str]:
    "(logits, labels, name) of what `evaluate` takes: a dataset by name, a folder or a label table."
    card = model.card
    refusal = CalibrationError(f"{printable(data)} is what the run was trained and tested on; leave out data= to "
                               f"calibrate on its held-out images, or name other images")
    if same_data(card.recipe.get("data") or "", data):
        raise refusal
    measured = evaluate(replace(model, temperature=1.0), data, columns, trained)
    if measured.fingerprint and measured.fingerprint == card.data.fingerprint:
        raise refusal
    if measured.trained is not None and (seen := int(measured.trained.sum())):
        raise CalibrationError(f"{card.name} was trained on {seen:,} of the {len(measured.labels):,} images of "
                               f"{printable(data)}, equal in every pixel, and would be made too sure; name images "
                               f"that it was not trained on")
    # Logarithms of a softmax are logits too: they differ from the model's by a constant for each image.
    return np.log(np.maximum(measured.probabilities, 1e-37)), measured.labels, measured.name
