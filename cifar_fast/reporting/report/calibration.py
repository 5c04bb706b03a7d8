"""Calibration: whether the accuracy of a model is as high as its confidence."""

from __future__ import annotations

import numpy as np
import pandas as pd

BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks" (2017)


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
