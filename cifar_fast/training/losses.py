"""Losses by the names that `loss=` takes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fastai.losses import CrossEntropyLossFlat, FocalLossFlat
from torch import nn

from cifar_fast.utils.errors import SettingError

__all__ = ["cross_entropy", "focal"]


def cross_entropy(weight: torch.Tensor | None = None, *, label_smoothing: float = 0.0):
    """Cross-entropy on logits (B, C) and labels (B,) or soft targets (B, C); `label_smoothing` in [0, 1).

    `weight` (C,) of each class, as `balance=loss` gives it.
    """
    if not 0 <= label_smoothing < 1:
        raise SettingError(f"loss.label_smoothing={label_smoothing}: expected 0 or more and less than 1")
    if weight is not None:
        return WeightedCrossEntropy(weight, label_smoothing)
    return CrossEntropyLossFlat(label_smoothing=label_smoothing, flatten=False)


class WeightedCrossEntropy(nn.Module):
    """The mean over a batch of each image's cross-entropy times its weight: the mean of `weight` under its target.

    With labels this is torch's own numerator. torch's `weight` multiplies the columns of a target instead: of two
    classes 1:20 with `label_smoothing=0.1` it would give a frequent image as much of the rare class as of its own, and
    a MixUp image with a tenth of a rare class two thirds of it. Weights belong to images; what an image shows does not
    change. The sum is divided by B, not by the sum of weights, which would raise the rate of batches without a rare
    image.
    """

    def __init__(self, weight: torch.Tensor, label_smoothing: float = 0.0):
        super().__init__()
        self.weight, self.label_smoothing = torch.as_tensor(weight, dtype=torch.float32), label_smoothing
        self.reduction = "mean"  # fastai sets it to "none" for the loss of each image

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        weight = self.weight = self.weight.to(logits.device)
        losses = F.cross_entropy(logits, target, label_smoothing=self.label_smoothing, reduction="none")
        losses = losses * (weight[target] if target.ndim == 1 else (target * weight).sum(1))
        return losses.mean() if self.reduction == "mean" else losses

    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        "Probabilities, for fastai."
        return logits.softmax(-1)

    def decodes(self, logits: torch.Tensor) -> torch.Tensor:
        "Classes, for fastai."
        return logits.argmax(-1)


class TemperedCrossEntropy(CrossEntropyLossFlat):
    "Cross-entropy; its `activation`, by which fastai makes probabilities, divides the logits by `temperature`."

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = temperature

    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        return super().activation(logits / self.temperature)


def focal(*, gamma: float = 2.0):
    "Focal loss (Lin et al., 2017) as fastai has it, on logits (B, C) and labels (B,); it takes no soft targets."
    return FocalLossFlat(gamma=gamma)


cross_entropy.takes_soft_targets = cross_entropy.takes_class_weights = True
