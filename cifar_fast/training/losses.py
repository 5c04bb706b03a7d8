"""Losses by the names that `loss=` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from fastai.losses import CrossEntropyLossFlat, FocalLossFlat

__all__ = ["cross_entropy", "focal"]


class MixedLabels(NamedTuple):
    "Several labels an image with their weights, as MixUp (2), CutMix (2) and RICAP (4) make them."

    labels: Sequence[torch.Tensor]  # each (B,) class indices
    weights: Sequence[torch.Tensor | float]  # each a number or (B,); they add up to 1


class MixedCrossEntropy(CrossEntropyLossFlat):
    "Cross-entropy that also takes `MixedLabels`: the weighted sum of the losses of each label."

    def __call__(self, inp, targ, **kwargs):
        if not isinstance(targ, MixedLabels):
            return super().__call__(inp, targ, **kwargs)
        reduction, self.reduction = self.reduction, "none"
        try:
            each = sum(w * super(MixedCrossEntropy, self).__call__(inp, y)
                       for y, w in zip(targ.labels, targ.weights, strict=True))
        finally:
            self.reduction = reduction
        return each.mean() if reduction == "mean" else each.sum() if reduction == "sum" else each


def cross_entropy(*, label_smoothing: float = 0.0):
    "Cross-entropy on logits (B, C); can mix. `label_smoothing` in 0..1 (Szegedy et al., 2016)."
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"loss.label_smoothing={label_smoothing}: expected 0 or more and less than 1")
    return MixedCrossEntropy(label_smoothing=label_smoothing)


def focal(*, gamma: float = 2.0):
    "Focal loss (Lin et al., 2017) as fastai has it; it takes one label an image, so it cannot mix."
    return FocalLossFlat(gamma=gamma)


cross_entropy.mixes = True
