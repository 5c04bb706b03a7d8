"""How a Learner is fitted, by the names that `fit=` takes: fastai's own loops with their arguments in reach."""

from __future__ import annotations

import fastai.callback.schedule  # noqa: F401  (patches fit_one_cycle and fit_flat_cos into Learner)

from cifar_fast.utils.errors import SettingError

__all__ = ["constant", "flat_cos", "one_cycle"]


def one_cycle(learn, epochs: int, lr: float, cbs, *, pct_start: float = 0.25, div: float = 25.0,
              div_final: float = 1e5, moms: tuple = (0.95, 0.85, 0.95)):
    "`Learner.fit_one_cycle`: cosine from lr/div up to lr over `pct_start` of the steps, then down to lr/div_final."
    if not 0 < pct_start < 1:
        raise SettingError(f"fit.pct_start={pct_start}: expected a fraction of training between 0 and 1")
    if len(moms) != 3:
        raise SettingError(f"fit.moms={moms}: expected three momentums, at the start, at the peak and at the end")
    learn.fit_one_cycle(epochs, lr, div=div, div_final=div_final, pct_start=pct_start, moms=moms, cbs=cbs)


def flat_cos(learn, epochs: int, lr: float, cbs, *, pct_start: float = 0.75, div_final: float = 1e5):
    "`Learner.fit_flat_cos`: lr held for `pct_start` of the steps, then a cosine down to lr/div_final."
    if not 0 <= pct_start < 1:
        raise SettingError(f"fit.pct_start={pct_start}: expected a fraction of training, 0 or more and less than 1")
    learn.fit_flat_cos(epochs, lr, div_final=div_final, pct_start=pct_start, cbs=cbs)


def constant(learn, epochs: int, lr: float, cbs):
    "`Learner.fit`: lr held, or set by the recipe's `sched`."
    learn.fit(epochs, lr, cbs=cbs)


# A recipe with one of these may not name a `sched` as well.
one_cycle.sets_lr = flat_cos.sets_lr = True
