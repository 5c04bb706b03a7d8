"""The state of a run besides its `TrainState`: saved to a checkpoint, and restored from one."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch

from cifar_fast.training.callbacks.history import History, loss_ratio
from cifar_fast.training.callbacks.stateful import StatefulCallback

SUMS = ("total", "count", "correct")
"Attributes of our metrics and fastai's that are sums over images: their state, of which others are derived."

MAX_LOSS_RATIO = 10
"A loss so many times its first value is not saved over a better one."


def run_state(learn) -> dict[str, Any]:
    "Weights, optimizer, callbacks, Recorder and RNGs: all that outlives an epoch, besides the `TrainState`."
    return {"model": learn.model.state_dict(), "optimizer": learn.opt.state_dict(),
            "callbacks": {cb.name: cb.state_dict() for cb in stateful(learn)}, "recorder": recorded(learn.recorder),
            "train_iter": learn.train_iter, "rng": rng_state()}


def restore_run(learn, history: History, saved: dict, changed: bool = False) -> list[str]:
    """Load what was saved; returns a line for each callback that has no saved state and starts here.

    With a `changed` recipe its own rates hold, not the saved ones, and a schedule is stepped to where it would be.
    """
    started = []
    epochs, batches = saved["position"]
    length = len(learn.dls.train)
    if saved["batches"] != length:
        batches = 0  # with another number of batches the epoch starts again
    learn.model.load_state_dict(saved["model"])
    restore_optimizer(learn.opt, saved["optimizer"], keep_hypers=changed)
    restore_recorder(learn.recorder, saved["recorder"])
    history.load_state_dict(saved["state"])
    for cb in stateful(learn):
        if changed and cb.follows_recipe:
            cb.catch_up(epochs, batches, length)
        elif cb.name in saved["callbacks"]:
            cb.load_state_dict(saved["callbacks"][cb.name])
        else:
            cb.before_fit()  # again, now with the weights of the run
            started.append(f"{cb.name} starts here: the run had none")
    learn.train_iter = saved["train_iter"]
    set_rng_state(saved["rng"])
    return started


def restore_optimizer(opt, saved: dict, keep_hypers: bool) -> None:
    "Load a state into fastai's wrapper of a torch optimizer. Raises ValueError naming the damaged entry."
    own = [{k: v for k, v in group.items() if k != "params"} for group in groups(opt)]
    opt.load_state_dict(saved)
    for i, (group, fresh) in enumerate(zip(groups(opt), own, strict=True)):
        if keep_hypers:
            group.update(fresh)
        for key, value in fresh.items():
            if not same_kind(group.get(key), value):
                raise ValueError(f"the optimizer's group {i} has {key}={group.get(key)!r}")
        entries = [(p, opt.opt.state[p]) for p in group["params"] if p in opt.opt.state]
        for p, entry in entries:
            if not isinstance(entry, dict) or entry.keys() != entries[0][1].keys():
                raise ValueError(f"the optimizer's state of a parameter {tuple(p.shape)} is damaged")
            for key, value in entry.items():
                if not (torch.is_tensor(value) and value.shape in (p.shape, torch.Size())):
                    raise ValueError(f"the optimizer's {key} of a parameter {tuple(p.shape)} is damaged")


def same_kind(value: Any, like: Any) -> bool:
    "Whether a hyperparameter can replace another: a number a number, else the same type and length."
    if isinstance(like, int | float) and not isinstance(like, bool):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is type(like) and (not isinstance(like, tuple) or (
        len(value) == len(like) and all(map(same_kind, value, like))))


def groups(opt) -> list[dict]:
    "Of a torch optimizer inside fastai's wrapper."
    return opt.opt.param_groups


def has_diverged(learn, max_norm: float) -> bool:
    "Whether loss or weights are non-finite or out of bounds: such a state is not worth saving."
    return not (loss_ratio(learn.recorder) < MAX_LOSS_RATIO and weight_norm(learn.model) < max_norm)


def weight_norm(model) -> float:
    "Of all weights as one vector; infinite or NaN where one of them is."
    return float(torch.stack([p.detach().float().norm() for p in model.parameters()]).norm())


def epoch_state(learn, history: History) -> dict[str, Any]:
    "What starts again with every epoch: how far it is, and the sums of the metrics."
    sums = {m.name: {k: v for k, v in vars(m).items() if k in SUMS} for m in learn.recorder.metrics}
    return {"pct_train": learn.pct_train, "metrics": sums, "history": history.epoch_state()}


def restore_epoch(learn, history: History, saved: dict) -> None:
    learn.pct_train = saved["pct_train"]
    for metric in learn.recorder.metrics:
        vars(metric).update(saved["metrics"].get(metric.name, {}))
    history.load_epoch_state(saved["history"])


def stateful(learn) -> list[StatefulCallback]:
    return [cb for cb in learn.cbs if isinstance(cb, StatefulCallback)]


def recorded(recorder) -> dict[str, Any]:
    smooth = recorder.smooth_loss
    losses = torch.tensor([float(x) for x in recorder.losses]) if recorder.losses else None
    return {"lrs": recorder.lrs, "iters": recorder.iters, "losses": losses,
            "values": [list(v) for v in recorder.values], "count": smooth.count, "val": smooth.val}


def restore_recorder(recorder, state: dict) -> None:
    recorder.lrs, recorder.iters = list(state["lrs"]), list(state["iters"])
    recorder.losses = [] if state["losses"] is None else state["losses"].tolist()
    recorder.values = [list(v) for v in state["values"]]
    recorder.smooth_loss.count, recorder.smooth_loss.val = state["count"], state["val"]


def plain(value: Any) -> Any:
    "Without fastai's tensor types and NumPy's numbers, which a weights-only file cannot hold."
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    if isinstance(value, torch.Tensor):
        return value.detach().as_subclass(torch.Tensor)
    return value.item() if isinstance(value, np.generic) else value


def rng_state() -> dict[str, Any]:
    "Of Python, NumPy and torch on the CPU and on CUDA devices; a run seeds each step, so that MPS needs none."
    name, keys, *rest = np.random.get_state()
    return {"python": random.getstate(), "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *rest),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_rng_state(state: dict) -> None:
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count() and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
