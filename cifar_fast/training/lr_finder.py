"""lr_find that leaves no trace: fastai's mock training, then everything as it was."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import minimum, slide, steep, valley
from fastai.callback.training import GradientClip

from cifar_fast.training.callbacks.precision import precision_cbs
from cifar_fast.utils.seeds import rng_restored

FEWEST = 30
"Steps of a search: `suggestions` leaves out the first tenth and the last five, `slide` looks 15 back."

SUGGESTIONS = {"valley": valley, "slide": slide, "minimum": minimum, "steep": steep}


def find(run, start_lr: float = 1e-6, end_lr: float = 10, num_it: int = 100) -> dict:
    """Losses over a learning rate that grows from `start_lr` to `end_lr` in `num_it` steps, and four suggestions.

    Weights, optimizer, DataLoader and every RNG are left as they were found. It trains in the recipe's precision and
    with its augmentation, mixing and clipping, for they change which rate is right.
    """
    learn = run.learn
    if num_it < FEWEST:
        raise ValueError(f"num_it={num_it}: fewer than {FEWEST} steps say nothing")
    r = run.recipe
    cbs = [*precision_cbs(run.precision, r.channels_last), *([r.mix()] if r.mix else []),
           *([GradientClip(r.clip)] if r.clip else [])]
    state, opt = deepcopy(learn.model.state_dict()), learn.opt
    bars = [cb for cb in learn.cbs if isinstance(cb, ProgressCallback)]
    epoch, path = learn.dls.train.next_epoch, learn.path
    learn.opt = None
    try:
        with TemporaryDirectory() as scratch, rng_restored(), learn.removed_cbs(bars), learn.added_cbs(cbs):
            learn.path = Path(scratch)  # fastai saves the weights there meanwhile
            learn.lr_find(start_lr, end_lr, num_it, show_plot=False, suggest_funcs=None)
    finally:
        learn.model.load_state_dict(state)
        learn.opt, learn.path = opt, path
        learn.model.zero_grad()
        learn.dls.train.set_epoch(epoch)
        for cb in cbs:
            getattr(cb, "undo", lambda: None)()
    lrs, losses = list(learn.recorder.lrs), [float(x) for x in learn.recorder.losses]
    return {"lr": lrs, "loss": losses, "suggestions": suggestions(lrs, losses)}


def suggestions(lrs: list[float], losses: list[float]) -> dict[str, dict[str, float]]:
    "What fastai's four rules choose on this curve; its first tenth (still warming up) and last steps left out."
    skip = len(lrs) // 10
    lr, loss = torch.tensor(lrs[skip:-5]), torch.tensor(losses[skip:-5])
    if len(lr) < 16 or not torch.isfinite(loss).all():
        finite = int(torch.isfinite(loss).long().cumprod(0).sum())
        lr, loss = lr[:finite], loss[:finite]
    if len(lr) < 16:  # `slide` looks 15 steps back
        raise ValueError("the loss broke off within a few steps; start lower (--start) or look at the data")
    out = {}
    for name, rule in SUGGESTIONS.items():
        at = float(rule(lr, loss, len(lrs))[0])
        # "minimum" suggests a tenth of the best rate: what it marks must be the curve there, not at the best rate.
        out[name] = {"lr": at, "loss": float(np.interp(np.log(at), lr.log().numpy(), loss.numpy()))}
    return out
