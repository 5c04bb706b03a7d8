"""Whether a net is as often right as it says."""

from __future__ import annotations

import numpy as np
import pandas as pd

BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks" (2017)


def bins(probabilities: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Confidence (the probability of the predicted class), accuracy and count in BINS of equal width, but empty ones.

    probabilities (N, C), correct (N,) bool.
    """
    confidence = probabilities.max(1)
    place = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    frame = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": correct.astype(float)})
    found = frame.groupby("bin").agg(confidence=("confidence", "mean"), accuracy=("accuracy", "mean"),
                                     count=("accuracy", "size"))
    return found.reset_index()


def calibration_error(probabilities: np.ndarray, correct: np.ndarray) -> float:
    "Expected calibration error (Guo et al., 2017): the mean gap between confidence and accuracy, weighted by count."
    found = bins(probabilities, correct)
    return float((found["count"] * (found["accuracy"] - found["confidence"]).abs()).sum() / found["count"].sum())
