"""Calibration: whether a model is right as often as its confidence says, and a temperature that makes it so."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cifar_fast.export.card_parts import TEMPERATURES
from cifar_fast.export.temperature import softmax, tempered
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.tables import aligned

BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks" (2017)
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
LEAST = 2.0**-24  # of a probability in a file of predictions, in float16: what is smaller counts as this
FOLDS = 5  # each fifth of the images is measured with the temperature of the others


class CalibrationError(CifarFastError):
    "Images that give no temperature; the message says why and the next step."


def bins(probabilities: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Mean confidence, accuracy and count in each of BINS bins of equal width; empty ones are left out.

    probabilities (N, C), correct (N,) bool. Confidence is the probability of the predicted class.
    """
    confidence = probabilities.max(1)
    index = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    frame = pd.DataFrame({"bin": index, "confidence": confidence, "accuracy": correct.astype(float)})
    table = frame.groupby("bin").agg(confidence=("confidence", "mean"), accuracy=("accuracy", "mean"),
                                     count=("accuracy", "size"))
    return table.reset_index()


def calibration_error(probabilities: np.ndarray, correct: np.ndarray) -> float:
    "Expected calibration error (Guo et al., 2017): the mean gap between confidence and accuracy, weighted by count."
    table = bins(probabilities, correct)
    return float(np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["count"]))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    "Mean negative log-likelihood of the true classes, for probabilities (N, C) and labels (N,)."
    true = np.take_along_axis(probabilities, labels[:, None], 1)[:, 0].astype(np.float64)
    return float(-np.log(np.maximum(true, LEAST)).mean())


# ---------------------------------------------------------------- temperature


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of least negative log-likelihood, for logits (N, C) and labels (N,).

    Raises CalibrationError where there is none within TEMPERATURES.
    """
    more = "calibrate on more images, or on others: calibrate EXPORT data=FOLDER"
    if (logits.argmax(1) == labels).all():  # the smaller the temperature, the better, without end
        raise CalibrationError(f"all {len(labels):,} images are predicted right, so that no confidence is too high "
                               f"for them and they give no temperature; {more}")
    temperature = best_temperature(logits, labels)
    if temperature > 0.99 * TEMPERATURES[1]:
        raise CalibrationError(f"on these {len(labels):,} images the predictions are no better than chance, which no "
                               f"temperature mends; look at their labels, or {more}")
    return temperature


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    "The same, at a bound of TEMPERATURES where there is none within."
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = logits.astype(np.float64)
    chosen = logits[np.arange(len(labels)), labels]

    def loss(inverse: float) -> float:  # of 1/temperature it is convex: what is found is the only minimum
        return float((logsumexp(logits * inverse, axis=1) - chosen * inverse).mean())

    least, most = TEMPERATURES
    return float(1 / minimize_scalar(loss, bounds=(1 / most, 1 / least), method="bounded", options={"xatol": 1e-6}).x)


def cross_fitted(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    "(N, C) probabilities; each image's temperature is fitted without it, so that what is measured of them is honest."
    fold = np.random.default_rng(0).permutation(len(labels)) % FOLDS
    probabilities = np.empty(logits.shape)
    for i in range(FOLDS):
        here = fold == i
        if here.any() and not here.all():
            probabilities[here] = softmax(logits[here] / best_temperature(logits[~here], labels[~here]))
    return probabilities


# ---------------------------------------------------------------- coverage and accuracy at thresholds


def confidence_scores(probabilities: np.ndarray, correct: np.ndarray, temperature: float = 1.0,
                      labels: np.ndarray | None = None) -> dict:
    """Expected calibration error and with `labels` the negative log-likelihood (with a temperature both also without
    it), and for each threshold the coverage, which is the fraction of images at or above it, and the accuracy on these,
    None where there are none.
    """
    confidence = probabilities.max(1)
    thresholds = []
    for threshold in THRESHOLDS:
        covered = confidence >= threshold
        right = float(correct[covered].mean()) if covered.any() else None
        thresholds.append({"threshold": threshold, "answered": float(covered.mean()), "right": right})
    scores = {"calibration_error": calibration_error(probabilities, correct), "thresholds": thresholds}
    if labels is not None:
        scores["log_loss"] = log_loss(probabilities, labels)
    if temperature != 1:
        raw = tempered(probabilities, 1 / temperature)
        scores |= {"temperature": temperature, "calibration_error_uncalibrated": calibration_error(raw, correct)}
        if labels is not None:
            scores["log_loss_uncalibrated"] = log_loss(raw, labels)
    return scores


def confidence_line(scores: dict) -> str:
    "`expected calibration error 1.2 %, log loss 0.201 (4.5 %, 0.251 without the temperature 1.43)`."
    def both(after: str) -> str:
        loss = f", log loss {scores[f'log_loss{after}']:.3f}" if f"log_loss{after}" in scores else ""
        return f"{scores[f'calibration_error{after}']:.1%}{loss}"

    before = (f" ({both('_uncalibrated')} without the temperature {scores['temperature']:.2f})"
              if "temperature" in scores else "")
    return f"expected calibration error {both('')}{before}"


def threshold_rows(scores: dict) -> list[list[str]]:
    "The table over thresholds, with its heading."
    return [["threshold", "coverage", "accuracy on these"],
            *([f"{row['threshold']:.2f}" if row["threshold"] else "none", f"{row['answered']:.1%}",
               "–" if row["right"] is None else f"{row['right']:.2%}"] for row in scores["thresholds"])]


def confidence_text(scores: dict) -> str:
    "For a terminal."
    return "\n".join([*aligned(threshold_rows(scores), left=0), confidence_line(scores)])
