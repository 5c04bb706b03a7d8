"""torch's own optimizers inside fastai's `OptimWrapper`, by the names that `opt=` takes.

fastai's optimizers differ from torch's (decoupled decay, none on norms and biases, Adam's eps 1e-5 and sqr_mom 0.99,
no Nesterov), and the published systems used torch's.
"""

from __future__ import annotations

import torch
from fastai.optimizer import OptimWrapper

__all__ = ["adam", "adamw", "sgd"]


def _wrapped(make, params, decay_norms, weight_decay, **kw):
    # A Learner hands over its parameters, or groups of them where it was made with a splitter.
    flat = [p for group in params for p in ([group] if isinstance(group, torch.Tensor) else group)]
    if decay_norms:
        groups = [{"params": flat, "weight_decay": weight_decay}]
    else:  # scales and biases (one dimension) carry no capacity worth shrinking
        groups = [{"params": [p for p in flat if p.ndim > 1], "weight_decay": weight_decay},
                  {"params": [p for p in flat if p.ndim <= 1], "weight_decay": 0.0}]
    return OptimWrapper(opt=make([g for g in groups if g["params"]], **kw))


def sgd(params, lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0, nesterov: bool = False,
        decay_norms: bool = True):
    "torch.optim.SGD; `weight_decay` is L2, on norms and biases too unless `decay_norms=False`."
    return _wrapped(torch.optim.SGD, params, decay_norms, weight_decay, lr=lr, momentum=momentum,
                    nesterov=nesterov)


def adam(params, lr: float, *, betas: tuple = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
         decay_norms: bool = True):
    "torch.optim.Adam; `weight_decay` is L2 added to the gradient."
    return _wrapped(torch.optim.Adam, params, decay_norms, weight_decay, lr=lr, betas=betas, eps=eps)


def adamw(params, lr: float, *, betas: tuple = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01,
          decay_norms: bool = True):
    "torch.optim.AdamW; `weight_decay` is decoupled from the gradient and times the learning rate."
    return _wrapped(torch.optim.AdamW, params, decay_norms, weight_decay, lr=lr, betas=betas, eps=eps)
