"""Losses by the names that `loss=` takes."""

from __future__ import annotations

from fastai.losses import CrossEntropyLossFlat, FocalLossFlat

from cifar_fast.utils.errors import SettingError

__all__ = ["cross_entropy", "focal"]


def cross_entropy(*, label_smoothing: float = 0.0):
    "Cross-entropy on logits (B, C) and labels (B,) or soft targets (B, C); `label_smoothing` in [0, 1)."
    if not 0 <= label_smoothing < 1:
        raise SettingError(f"loss.label_smoothing={label_smoothing}: expected 0 or more and less than 1")
    return CrossEntropyLossFlat(label_smoothing=label_smoothing, flatten=False)


def focal(*, gamma: float = 2.0):
    "Focal loss (Lin et al., 2017) as fastai has it, on logits (B, C) and labels (B,); it takes no soft targets."
    return FocalLossFlat(gamma=gamma)


cross_entropy.takes_soft_targets = True
