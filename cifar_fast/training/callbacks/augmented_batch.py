"""The first images of a run as the model gets them: augmented, resized, mixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from fastai.callback.core import Callback
from fastai.data.transforms import Normalize

from cifar_fast.training.batch_transforms import BatchTransforms
from cifar_fast.utils.fonts import figure_names

UNMIXED, MIXED = 24, 8
"Images taken of the first batch that is not mixed, and of the first one of each kind of mixing."


class Sample:
    "Images and captions of the first batch of each kind."

    def __init__(self, dls):
        self.vocab, self.taken = figure_names(dls.vocab, 12), {}
        self.normalize = next(t for t in dls.train.after_batch.fs if isinstance(t, Normalize))

    def add(self, x: torch.Tensor, y: torch.Tensor, kind: str) -> None:
        "`x` (B, 3, H, W), `y` (B,) or (B, C), after the batch transforms."
        if kind not in self.taken:
            n = UNMIXED if kind == "none" else MIXED
            self.taken[kind] = (pixels(self.normalize, x[:n]), captions(y[:n], self.vocab))

    def rows(self) -> list[tuple[str, list, list[str]]]:
        "(heading, images, captions) of each kind, the unmixed batch first."
        titles = {"none": "training batch: augmented"}
        return [(titles.get(kind, kind), *self.taken[kind]) for kind in sorted(self.taken, key=lambda k: k != "none")]


class AugmentedBatch(Callback):
    "Takes a `Sample` of the first epoch that has batches and hands its rows to `draw` at the epoch's end; uses no RNG."

    order = 90  # after all that changes a batch

    def __init__(self, transforms: BatchTransforms, draw: Callable[[list], None]):
        self.transforms, self.draw, self.sample = transforms, draw, None

    def before_fit(self):
        self.sample = Sample(self.dls)

    def before_batch(self):
        if self.training and self.sample:
            self.sample.add(self.x, self.y, self.transforms.kind)

    def after_train(self):
        if self.sample and self.sample.taken:  # a resumed epoch may have no batch left
            self.draw(self.sample.rows())
            self.sample = None


def pixels(normalize: Normalize, x: torch.Tensor) -> list:
    "Normalized images (N, 3, H, W) as uint8 arrays (H, W, 3)."
    x = x.as_subclass(torch.Tensor).float().cpu()
    mean, std = (s.as_subclass(torch.Tensor).cpu().view(1, 3, 1, 1) for s in (normalize.mean, normalize.std))
    return list(((x * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy())


def captions(y: torch.Tensor, vocab: Sequence) -> list[str]:
    "The class of each image; of mixed ones the two with the largest fractions."
    if y.ndim == 1:
        return [str(vocab[int(i)]) for i in y]
    return ["\n".join(f"{vocab[int(i)]} {value:.0%}" for value, i in zip(*top, strict=True) if value >= 0.005)
            for top in zip(*y.topk(min(2, y.shape[1])), strict=True)]
