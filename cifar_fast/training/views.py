"""Several augmented views of each image in a batch, with AugMix's Jensen-Shannon consistency loss between them.

`views=2` takes each image twice into its batch, augmented anew each time; both views are mixed alike, with the same
partners, shares and boxes, so their targets are equal. The loss of a batch is

    (the recipe's loss, over all views)  +  views.weight · JS(views)

with the Jensen-Shannon divergence of the views' softmaxes, mean over the images (Hendrycks et al., 2020,
arXiv:1912.02781, who weight it by 12). `bs` counts images before they are repeated: a step costs as much as one of
`views` · `bs` images.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from fastai.callback.core import Callback


class Consistency(Callback):
    "Adds the divergence of the views to the loss of each training batch."

    order = 8.6  # its loss comes after the teacher's (8.5), before precision (9) scales it
    run_valid = False

    def __init__(self, views: int, weight: float):
        self.views, self.weight = views, weight

    def after_loss(self):
        part = divergence(self.pred.float(), self.views)
        self.learn.loss_grad = self.loss_grad + self.weight * part
        self.learn.loss = self.loss_grad.clone()


def divergence(logits: torch.Tensor, views: int) -> torch.Tensor:
    """Jensen-Shannon divergence in nats, mean over the images.

    `logits` (views · N, C): all images as the first view, then all as the second one, and so on.
    """
    each = logits.log_softmax(1).view(views, -1, logits.shape[1])
    middle = (each.logsumexp(0) - math.log(views)).expand_as(each)
    return F.kl_div(middle, each, reduction="none", log_target=True).sum(2).mean()


def views_cbs(recipe) -> list[Callback]:
    "The callback of a recipe with several views; none for one view, or without a weight."
    return [Consistency(recipe.views, recipe.views_weight)] if recipe.views > 1 and recipe.views_weight else []
