"""How a Learner is fitted, by the names that `fit=` takes: fastai's own loops with their arguments in reach."""

from __future__ import annotations

import fastai.callback.schedule  # noqa: F401  (patches fit_one_cycle and fit_flat_cos into Learner)
import numpy as np
from fastai.callback.schedule import ParamScheduler, combine_scheds, combined_cos

from cifar_fast.training.callbacks.freezing import Freezing
from cifar_fast.utils.errors import SettingError

__all__ = ["constant", "fine_tune", "flat_cos", "one_cycle"]


def one_cycle(learn, epochs: int, lr: float, cbs, *, pct_start: float = 0.25, div: float = 25.0,
              div_final: float = 1e5, moms: tuple = (0.95, 0.85, 0.95)):
    "`Learner.fit_one_cycle`: cosine from lr/div up to lr over `pct_start` of the steps, then down to lr/div_final."
    if not 0 < pct_start < 1:
        raise SettingError(f"fit.pct_start={pct_start}: expected a fraction of training between 0 and 1")
    require_momentums(moms)
    learn.fit_one_cycle(epochs, lr, div=div, div_final=div_final, pct_start=pct_start, moms=moms, cbs=cbs)


def flat_cos(learn, epochs: int, lr: float, cbs, *, pct_start: float = 0.75, div_final: float = 1e5):
    "`Learner.fit_flat_cos`: lr held for `pct_start` of the steps, then a cosine down to lr/div_final."
    if not 0 <= pct_start < 1:
        raise SettingError(f"fit.pct_start={pct_start}: expected a fraction of training, 0 or more and less than 1")
    learn.fit_flat_cos(epochs, lr, div_final=div_final, pct_start=pct_start, cbs=cbs)


def constant(learn, epochs: int, lr: float, cbs):
    "`Learner.fit`: lr held, or set by the recipe's `sched`."
    learn.fit(epochs, lr, cbs=cbs)


def fine_tune(learn, epochs: int, lr: float, cbs, *, freeze_epochs: int = 1, lr_mult: float = 100.0,
              pct_start: float = 0.3, div: float = 5.0, div_final: float = 1e5, moms: tuple = (0.95, 0.85, 0.95)):
    """`Learner.fine_tune` in one fit: `freeze_epochs` of the head alone at lr, the rest with slice(lr/2/lr_mult, lr/2).

    Both parts are a one-cycle, the first one rising for 99 % of its steps. `epochs` counts both.
    """
    if not 0 <= freeze_epochs < epochs:
        raise SettingError(f"fit.freeze_epochs={freeze_epochs}: expected 0 to {epochs - 1}: it counts within "
                           f"epochs={epochs}")
    if not 0 < pct_start < 1:
        raise SettingError(f"fit.pct_start={pct_start}: expected a fraction of training between 0 and 1")
    if not 1 <= lr_mult < float("inf"):
        raise SettingError(f"fit.lr_mult={lr_mult}: expected a number of at least 1")
    require_momentums(moms)
    if learn.opt is None:
        learn.create_opt()
    if len(learn.opt.hypers) < 2:
        raise SettingError("fit=fine_tune freezes groups of parameters, and this Learner has a single one; make it "
                           "with splitter=stem_stages_head")
    frozen, unfrozen = rates(learn, slice(lr)), rates(learn, slice(lr / 2 / lr_mult, lr / 2))
    cycles = [(combined_cos(0.99, frozen / 25, frozen, frozen / div_final), combined_cos(0.99, *moms)),
              (combined_cos(pct_start, unfrozen / div, unfrozen, unfrozen / div_final), combined_cos(pct_start, *moms))]
    part = freeze_epochs / epochs
    scheds = {name: combine_scheds([part, 1 - part], both) if part else both[1]
              for name, both in zip(("lr", "mom"), zip(*cycles, strict=True), strict=True)}
    try:
        learn.fit(epochs, lr, cbs=[ParamScheduler(scheds), Freezing(freeze_epochs), *cbs])
    finally:
        learn.opt.unfreeze()


def require_momentums(moms: tuple) -> None:
    "Raise SettingError unless they are three numbers from 0 to below 1."
    if not isinstance(moms, tuple | list) or len(moms) != 3 or not all(
            isinstance(m, int | float) and 0 <= m < 1 for m in moms):
        raise SettingError(f"fit.moms={moms}: expected three momentums of at least 0 and below 1, at the start, at the "
                           f"peak and at the end")


def rates(learn, lr: slice) -> np.ndarray:
    "The learning rate of each group for fastai's `slice`."
    learn.opt.set_hyper("lr", lr)
    return np.array([hyper["lr"] for hyper in learn.opt.hypers])


# A recipe with one of these may not name a `sched` as well.
one_cycle.sets_lr = flat_cos.sets_lr = fine_tune.sets_lr = True
fine_tune.by_depth = True  # it needs the splitter's groups, the head last
