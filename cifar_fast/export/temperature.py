"""Probabilities at another temperature. Needs numpy alone: a model without torch is opened with it."""

from __future__ import annotations

import numpy as np


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    "(N, C) softmax of the logits divided by `temperature`, from the softmax of the logits."
    if temperature == 1:
        return probabilities
    with np.errstate(divide="ignore"):  # log 0 is -inf, whose probability stays 0
        return softmax(np.log(probabilities.astype(np.float64)) / temperature).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    "(N, C) of (N, C)."
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
