"""MixUp, CutMix and RICAP: functions (images, soft targets) → the same, and a transform that samples one per batch.

fastai's MixUp and CutMix exclude each other and patch the Learner's loss. Mixed labels are soft targets (B, C) here,
which cross-entropy takes as they are.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch.distributions import Beta

from cifar_fast.training.batch_transforms import BatchTransform
from cifar_fast.utils.errors import SettingError

__all__ = ["mixing"]


def box(height: int, width: int, fraction: float) -> tuple[slice, slice]:
    "A random box that covers about `fraction` of the image, clipped at its border (Yun et al., 2019)."
    h, w = (round(n * math.sqrt(fraction)) for n in (height, width))
    cy, cx = (int(torch.randint(0, n, ())) for n in (height, width))
    return (slice(max(cy - h // 2, 0), min(cy - h // 2 + h, height)),
            slice(max(cx - w // 2, 0), min(cx - w // 2 + w, width)))


def mixup(x: torch.Tensor, y: torch.Tensor, alpha: float):
    "x (B, C, H, W), y (B, K): images blended in pairs, one weight per image (Zhang et al., 2018)."
    weight = Beta(alpha, alpha).sample((len(x),)).to(x.device, x.dtype)
    weight = torch.max(weight, 1 - weight)  # the image's own label is the heavier one
    other = torch.randperm(len(x)).to(x.device)
    return torch.lerp(x[other], x, weight[:, None, None, None]), torch.lerp(y[other], y, weight[:, None])


def cutmix(x: torch.Tensor, y: torch.Tensor, alpha: float):
    "A box of each image taken from another one, one box per batch; targets by area (Yun et al., 2019)."
    rows, cols = box(*x.shape[-2:], 1 - float(Beta(alpha, alpha).sample()))
    other = torch.randperm(len(x)).to(x.device)
    out = x.clone()
    out[..., rows, cols] = x[other][..., rows, cols]
    area = (rows.stop - rows.start) * (cols.stop - cols.start) / (x.shape[-2] * x.shape[-1])
    return out, (1 - area) * y + area * y[other]


def ricap(x: torch.Tensor, y: torch.Tensor, beta: float):
    "Four images cropped and patched around a random point; targets by area (Takahashi et al., 2018)."
    height, width = x.shape[-2:]
    top, left = (round(n * float(Beta(beta, beta).sample())) for n in (height, width))
    out, targets = torch.empty_like(x), torch.zeros_like(y)
    for rows in (slice(0, top), slice(top, height)):
        for cols in (slice(0, left), slice(left, width)):
            h, w = rows.stop - rows.start, cols.stop - cols.start
            other = torch.randperm(len(x)).to(x.device)
            cy, cx = int(torch.randint(0, height - h + 1, ())), int(torch.randint(0, width - w + 1, ()))
            out[..., rows, cols] = x[other][..., cy:cy + h, cx:cx + w]
            targets += h * w / (height * width) * y[other]
    return out, targets


FUNCTIONS = {"mixup": mixup, "cutmix": cutmix, "ricap": ricap}


class Mixing(BatchTransform):
    "Applies MixUp, CutMix, RICAP or nothing to each training batch, at random."

    def __init__(self, fractions: dict[str, float], parameters: dict[str, float], until: float, fade: float):
        self.fractions, self.parameters, self.until, self.fade = fractions, parameters, until, fade
        rest = 1 - sum(fractions.values())
        self.kinds = frozenset(name for name, part in [*fractions.items(), ("none", rest)] if part > 1e-9)
        self.classes = None

    def setup(self, model, classes):
        self.classes = classes

    def __call__(self, x, y, fraction):
        self.kind = self.choose(float(torch.rand(())) / self.share(fraction)) if fraction < self.until else "none"
        if self.kind == "none":
            return x, y
        return FUNCTIONS[self.kind](x, F.one_hot(y, self.classes).to(x.dtype), self.parameters[self.kind])

    def share(self, fraction: float) -> float:
        "Of the batches that are mixed before the fade, how many are after this fraction of training; above 0."
        return 1.0 if fraction <= self.fade else (self.until - fraction) / (self.until - self.fade)

    def choose(self, u: float) -> str:
        "The kind of mixing for a uniform random u from 0, none from the sum of the fractions on."
        for name, part in self.fractions.items():
            if u < part:
                return name
            u -= part
        return "none"


def mixing(*, mixup: float = 0.3, cutmix: float = 0.3, ricap: float = 0.0, mixup_alpha: float = 0.4,
           cutmix_alpha: float = 1.0, ricap_beta: float = 0.3, until: float = 1.0, fade: float = 1.0):
    """Fractions of the batches that are mixed each way (the rest is not mixed) and the parameters of their Beta
    distributions, for the first `until` fraction of training. From the fraction `fade` of training on, if that is
    before `until`, they fall in a straight line to 0.
    """
    fractions = {"mixup": mixup, "cutmix": cutmix, "ricap": ricap}
    if min(fractions.values()) < 0 or sum(fractions.values()) > 1 + 1e-9:
        raise SettingError(f"mix: the fractions {fractions} must be 0 or more and add up to at most 1")
    parameters = {"mixup": mixup_alpha, "cutmix": cutmix_alpha, "ricap": ricap_beta}
    if min(parameters.values()) <= 0:
        raise SettingError(f"mix: the Beta parameters {parameters} must be above 0")
    for name, value in (("until", until), ("fade", fade)):
        if not 0 <= value <= 1:
            raise SettingError(f"mix.{name}={value}: expected a fraction of training, in [0, 1]")
    return Mixing(fractions, parameters, until, fade)
