"""Balanced accuracy on the validation images, where their classes are unequal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from fastai.learner import Metric


class BalancedAccuracy(Metric):
    "The mean of the accuracies of all classes that have images: a model that never predicts a rare class is shown."

    def __init__(
        self,
        classes: int,
        predicted: Callable[..., torch.Tensor] = lambda learn: learn.pred.argmax(1),  # (B,) of the batch at hand
        name: str = "balanced_accuracy",
    ):
        self.classes, self.predicted, self._name = classes, predicted, name
        self.reset()

    @property
    def name(self) -> str:
        return self._name

    def reset(self):
        self.correct = torch.zeros(self.classes, dtype=torch.int64)
        self.count = torch.zeros(self.classes, dtype=torch.int64)

    def accumulate(self, learn):
        if learn.training:  # its images are mixed, and sampled
            return
        labels = learn.y.as_subclass(torch.Tensor)
        right = self.predicted(learn).as_subclass(torch.Tensor) == labels
        self.count += torch.bincount(labels, minlength=self.classes).cpu()
        self.correct += torch.bincount(labels[right], minlength=self.classes).cpu()

    @property
    def value(self) -> float | None:
        present = self.count > 0
        return float((self.correct[present] / self.count[present].double()).mean()) if present.any() else None
