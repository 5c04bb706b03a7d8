"""The first images of a run just as the net is given them: augmented, resized, mixed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.data.transforms import Normalize

from cifar_fast.training.losses import MixedLabels
from cifar_fast.utils.fonts import figure_names

STEPS = 200
PLAIN, MIXED = 24, 8
"Images kept of the first batch that is not mixed, and of the first one of each kind of mixing."


class AugmentedBatch(Callback):
    "Keeps images and captions of the first epoch, by kind, and draws them at its end; draws nothing from any RNG."

    order = 90  # after all that changes a batch

    def __init__(self,
        path: Path, # PNG; left alone where it is there, so that a resumed run keeps the first epoch's
        draw: Callable, # (rows of (heading, images, captions), path)
        stop: bool = False, # end the fit when all kinds have come, or STEPS are made: for a sheet without a run
    ):
        self.path, self.drawn_by, self.stop = path, draw, stop

    def before_fit(self):
        self.kept = {}

    def before_batch(self):
        if not self.training or self.kept is None:
            return
        mixing = next((cb for cb in self.learn.cbs if hasattr(type(cb), "drawn_now")), None)
        kind = mixing.drawn_now if mixing else "none"
        if kind not in self.kept:
            n = PLAIN if kind == "none" else MIXED
            self.kept[kind] = (pixels(self.dls, self.x[:n]), captions(self.y, n, figure_names(self.dls.vocab, 12)))

    def after_batch(self):
        if self.stop and self.training and self.kept and (self.iter + 1 >= STEPS or self.complete()):
            raise CancelFitException

    def complete(self) -> bool:
        "Whether every kind that can come has come."
        mixing = next((cb for cb in self.learn.cbs if hasattr(type(cb), "drawn_now")), None)
        return not mixing or set(self.kept) >= mixing.kinds()

    def after_train(self):
        self.draw()

    def after_fit(self):
        self.draw()

    def draw(self) -> None:
        kept, self.kept = self.kept, None
        if not kept or self.path.exists():
            return
        names = {"none": "training batch: augmented"}
        rows = [(names.get(kind, kind), *kept[kind]) for kind in sorted(kept, key=lambda k: k != "none")]
        self.drawn_by(rows, self.path)


def pixels(dls, x: torch.Tensor) -> list:
    "Normalised images (N, 3, H, W) as uint8 arrays (H, W, 3)."
    norm = next(t for t in dls.train.after_batch.fs if isinstance(t, Normalize))
    x = x.as_subclass(torch.Tensor).float().cpu()
    mean, std = (s.as_subclass(torch.Tensor).cpu().view(1, 3, 1, 1) for s in (norm.mean, norm.std))
    return list(((x * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy())


def captions(y, n: int, vocab) -> list[str]:
    "The class of each image; of mixed ones each class with its share, the largest first."
    if not isinstance(y, MixedLabels):
        return [str(vocab[int(i)]) for i in y[:n]]
    found = []
    for at in range(min(n, len(y.labels[0]))):
        parts = {}
        for labels, weights in zip(y.labels, y.weights, strict=True):
            share = float(weights[at]) if torch.is_tensor(weights) and weights.ndim else float(weights)
            parts[int(labels[at])] = parts.get(int(labels[at]), 0) + share
        ranked = sorted(parts.items(), key=lambda kv: -kv[1])[:2]
        found.append("\n".join(f"{vocab[i]} {share:.0%}" for i, share in ranked if share >= 0.005))
    return found
