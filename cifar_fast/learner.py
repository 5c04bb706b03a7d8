"""From DataLoaders and the name of an architecture to a fastai Learner."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastai.learner import Learner
from fastai.metrics import accuracy

from cifar_fast.archs import create_arch
from cifar_fast.callbacks.seeding import Seeding
from cifar_fast.losses import cross_entropy
from cifar_fast.optimizers import sgd


def cifar_learner(
    dls,  # DataLoaders of (B, 3, 32, 32) pictures, as `make_dls` makes them
    arch: str,  # a name in timm's registry
    *,
    loss_func: Callable | None = None,  # logits (B, C) and labels (B,) or `MixedLabels`; default cross-entropy
    opt_func: Callable | None = None,  # default torch's SGD with momentum
    metrics=accuracy,
    seed: int | None = None,  # of order, augmentation, mixing and dropout; default that of `dls.train`
    **kwargs,  # as `fastai.learner.Learner` takes them
) -> Learner:
    "A Learner for the whole net: the head is part of the architecture, so fastai adds none that breaks the budget."
    seed = getattr(dls.train, "seed", 0) if seed is None else seed
    learn = Learner(dls, create_arch(arch, dls.c), loss_func=loss_func or cross_entropy(),
                    opt_func=opt_func or partial(sgd, momentum=0.9), metrics=metrics, **kwargs)
    learn.recorder.train_metrics = True  # train_accuracy beside valid_accuracy
    learn.add_cb(Seeding(seed))
    return learn
