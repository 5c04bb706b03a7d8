"""MixUp, CutMix and RICAP: one chooser that draws one of them a batch.

fastai's MixUp and CutMix exclude each other and patch the Learner's loss. Here the labels say themselves that they
are mixed (`losses.MixedLabels`), so nothing has to be patched or undone.
"""

from __future__ import annotations

import math
from collections import Counter

import torch
from fastai.callback.core import Callback
from torch.distributions import Beta

from cifar_fast.training.losses import MixedLabels

__all__ = ["mixing"]


def box(height: int, width: int, share: float) -> tuple[slice, slice]:
    "A random box that covers about `share` of the image, clipped at its border (Yun et al., 2019)."
    h, w = (round(n * math.sqrt(share)) for n in (height, width))
    cy, cx = (int(torch.randint(0, n, ())) for n in (height, width))
    return (slice(max(cy - h // 2, 0), min(cy - h // 2 + h, height)),
            slice(max(cx - w // 2, 0), min(cx - w // 2 + w, width)))


def mixup(x, y, alpha: float):
    "x (B, C, H, W), y (B,): images blended in pairs, one weight an image (Zhang et al., 2018)."
    lam = Beta(alpha, alpha).sample((len(x),)).to(x.device, x.dtype)
    lam = torch.max(lam, 1 - lam)  # the first label is the heavier one
    other = torch.randperm(len(x)).to(x.device)
    return torch.lerp(x[other], x, lam[:, None, None, None]), MixedLabels((y, y[other]), (lam, 1 - lam))


def cutmix(x, y, alpha: float):
    "A box of each image taken from another one, one box a batch; labels by area (Yun et al., 2019)."
    rows, cols = box(*x.shape[-2:], 1 - float(Beta(alpha, alpha).sample()))
    other = torch.randperm(len(x)).to(x.device)
    out = x.clone()
    out[..., rows, cols] = x[other][..., rows, cols]
    share = (rows.stop - rows.start) * (cols.stop - cols.start) / (x.shape[-2] * x.shape[-1])
    return out, MixedLabels((y, y[other]), (1 - share, share))


def ricap(x, y, beta: float):
    "Four images cropped and patched around a random point; labels by area (Takahashi et al., 2018)."
    height, width = x.shape[-2:]
    top, left = (round(n * float(Beta(beta, beta).sample())) for n in (height, width))
    out, labels, weights = torch.empty_like(x), [], []
    for rows in (slice(0, top), slice(top, height)):
        for cols in (slice(0, left), slice(left, width)):
            h, w = rows.stop - rows.start, cols.stop - cols.start
            other = torch.randperm(len(x)).to(x.device)
            cy, cx = int(torch.randint(0, height - h + 1, ())), int(torch.randint(0, width - w + 1, ()))
            out[..., rows, cols] = x[other][..., cy:cy + h, cx:cx + w]
            labels.append(y[other])
            weights.append(h * w / (height * width))
    return out, MixedLabels(labels, weights)


class Mixing(Callback):
    "Draws MixUp, CutMix, RICAP or nothing for each training batch; `drawn` counts how often each came."

    run_valid = False
    order = 20  # on the device, after normalisation, before the precision callback
    drawn_now = "none"  # for the batch at hand

    def __init__(self, shares: dict, strengths: dict, until: float):
        self.shares, self.strengths, self.until = shares, strengths, until
        self.drawn = Counter()

    def before_fit(self):
        self.drawn.clear()

    def saved(self) -> dict:
        return {"drawn": dict(self.drawn)}

    def restore(self, saved: dict) -> None:
        self.drawn = Counter(saved["drawn"])

    def before_batch(self):
        name = self.draw(float(torch.rand(()))) if self.pct_train < self.until else "none"
        self.drawn[name] += 1
        self.drawn_now = name
        self.plain = self.yb
        if name != "none":
            mix = {"mixup": mixup, "cutmix": cutmix, "ricap": ricap}[name]
            x, y = mix(self.x.as_subclass(torch.Tensor), self.y.as_subclass(torch.Tensor), self.strengths[name])
            self.learn.xb, self.learn.yb = (x,), (y,)

    def kinds(self) -> set[str]:
        "What can be drawn."
        return {name for name, share in [*self.shares.items(), ("none", 1 - sum(self.shares.values()))] if share > 1e-9}

    def draw(self, u: float) -> str:
        "Which mixing the number u in 0..1 stands for."
        for name, share in self.shares.items():
            if u < share:
                return name
            u -= share
        return "none"

    def after_loss(self):
        # Training accuracy is counted against the plain labels: of a mixed image, the one it is named after.
        self.learn.yb = self.plain


def mixing(*, mixup: float = 0.3, cutmix: float = 0.3, ricap: float = 0.0, mixup_alpha: float = 0.4,
           cutmix_alpha: float = 1.0, ricap_beta: float = 0.3, until: float = 1.0):
    "Shares of the batches that each gets (the rest stays plain), their Beta parameters, up to which part of the run."
    shares = {"mixup": mixup, "cutmix": cutmix, "ricap": ricap}
    if min(shares.values()) < 0 or sum(shares.values()) > 1 + 1e-9:
        raise ValueError(f"mix: the shares {shares} must be 0 or more and add up to at most 1")
    strengths = {"mixup": mixup_alpha, "cutmix": cutmix_alpha, "ricap": ricap_beta}
    if min(strengths.values()) <= 0:
        raise ValueError(f"mix: the Beta parameters {strengths} must be above 0")
    if not 0 <= until <= 1:
        raise ValueError(f"mix.until={until}: expected a part of the run, 0 to 1")
    return Mixing(shares, strengths, until)
