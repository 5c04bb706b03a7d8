"""From DataLoaders and the name of an architecture to a fastai Learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from fastai.callback.core import CancelEpochException
from fastai.learner import Learner
from fastai.metrics import accuracy

from cifar_fast.data.block import image_reader
from cifar_fast.models import create_model
from cifar_fast.training import convolution_gradients
from cifar_fast.training.callbacks.seeding import Seeding
from cifar_fast.training.losses import cross_entropy
from cifar_fast.training.optimizers import sgd


class CifarLearner(Learner):
    """A Learner that can start in the middle of a run, for a resume.

    fastai's `start_epoch` cancels the epochs before, which still counts them, logs them and steps their schedulers.
    """

    start_at = (0, 0)  # (epoch, batch), counted from 0, that the next fit starts with

    def _do_fit(self):
        for epoch in range(self.start_at[0], self.n_epoch):
            self.epoch = epoch
            self._with_events(self._do_epoch, "epoch", CancelEpochException)

    def all_batches(self):
        self.n_iter = len(self.dl)
        done = self.start_at[1] if self.training and self.epoch == self.start_at[0] else 0
        if done:
            self.dl.skip_batches(done)
        for i, batch in enumerate(self.dl, done):
            self.one_batch(i, batch)


def cifar_learner(
    dls,  # DataLoaders of (B, 3, size, size) images, as `make_dls` makes them
    arch: str,  # a name in timm's registry
    *,
    size: int | None = None,  # that the model is built for, pixels; default that of the images of `dls`
    widths: Sequence[int] | None = None,  # of a model that was scaled to a budget; default its own
    loss_func: Callable | None = None,  # logits (B, C) and labels (B,) or soft targets (B, C); default cross-entropy
    opt_func: Callable | None = None,  # default torch's SGD with momentum
    metrics=accuracy,
    seed: int | None = None,  # of order, augmentation, mixing and dropout; default that of `dls.train`
    repeat: int = 0,  # epochs after which these come again, 0: never
    **kwargs,  # as `fastai.learner.Learner` takes them
) -> CifarLearner:
    "A Learner for the whole model: the head is part of the architecture, so fastai adds none that breaks the budget."
    convolution_gradients.install()
    seed = getattr(dls.train, "seed", 0) if seed is None else seed
    model = create_model(arch, dls.c, size or image_reader(dls).size, widths)
    learn = CifarLearner(dls, model, loss_func=loss_func or cross_entropy(),
                         opt_func=opt_func or partial(sgd, momentum=0.9), metrics=metrics, **kwargs)
    learn.recorder.train_metrics = True  # train_accuracy beside valid_accuracy
    learn.add_cb(Seeding(seed, repeat))
    return learn
