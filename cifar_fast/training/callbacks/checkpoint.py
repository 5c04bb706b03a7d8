"""A run on disk, from which it resumes bit for bit.

Draws follow from (seed, epoch, batch), so workers and Albumentations have nothing to save. Callbacks with a state of
their own are `StatefulCallback`s. The file is read with `weights_only=True`: it cannot run code.
"""

from __future__ import annotations

import io
import math
import random
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback

from cifar_fast.training.callbacks.history import History, loss_ratio
from cifar_fast.training.callbacks.stateful import StatefulCallback
from cifar_fast.training.state import TrainState
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import atomic_write

FORMAT = 3
"Of the file; another number is refused."

MAX_LOSS_RATIO = 10
"A loss so many times its first value is not saved over a better one."

MAX_WEIGHT_RATIO = 100
"Nor are weights so many times as long as those that the model was made with: a step too far shows there at once."

SAVED = ("about", "position", "batches", "state", "model", "optimizer", "callbacks", "recorder", "train_iter", "rng",
         "epoch")
"What a file of this format holds."


class CheckpointError(CifarFastError):
    "A checkpoint that cannot be continued; the message names the file and the next step."


class Checkpoint(Callback):
    "Saves the run after every `epochs` epochs and, within one, every `minutes`; resumes from `start` where given."

    order = 100  # after everything that changes a state

    def __init__(
        self,
        path: Path,
        about: dict,  # saved in the file as it is
        epochs: int = 1,  # 0 for never
        minutes: float = 0,  # since the last one, 0 for never
        start: dict | None = None,  # what `load` gave
    ):
        self.path, self.about, self.epochs, self.minutes, self.start = path, about, epochs, minutes, start
        self.history: History | None = None  # set by `fit`: the state of the run and of its epoch
        self.stop = None  # set from outside: an exception to raise once the step is done and saved
        self.done = False  # set from outside: the fit has ended
        self.first_norm = math.inf  # of the weights that the model was made with

    def before_fit(self):
        self.last, self.first_norm = time.monotonic(), weight_norm(self.learn.model)
        if self.start:
            with checkpoint_error(self.path):
                fresh = restore_run(self.learn, self.history, self.start, self.changed())
            for line in fresh:
                print(f"  {line}", flush=True)
            epoch, batch = self.start["position"]
            if self.start["batches"] != len(self.dls.train):
                batch = 0  # another number of batches: there is no such place in the epoch, which starts again
            self.learn.begin_at = self.begins = (epoch, batch)

    def before_train(self):
        if self.start and self.begins[1] and self.epoch == self.begins[0]:
            with checkpoint_error(self.path):
                restore_epoch(self.learn, self.history, self.start["epoch"])

    def changed(self) -> bool:
        "Whether the run resumes with another recipe than it was started with."
        return any(self.start["about"][k] != self.about[k] for k in ("recipe", "lr"))

    def after_batch(self):
        due = self.minutes and time.monotonic() - self.last >= 60 * self.minutes
        if self.training and (due or self.stop):
            self.save(self.epoch, self.iter + 1)

    def after_epoch(self):
        # The last epoch is always saved: a run that dies in its export need not train again.
        if self.stop or self.epoch + 1 == self.n_epoch or (self.epochs and (self.epoch + 1) % self.epochs == 0):
            self.save(self.epoch + 1, 0)

    def after_cancel_fit(self):
        self.save(self.n_epoch, 0)  # stopped early, before `after_epoch` came here: no epoch is left

    def save(self, epoch: int, batch: int) -> None:
        "Where `batch` batches of `epoch` are done. A run that has diverged leaves the former checkpoint as it is."
        if has_diverged(self.learn, MAX_WEIGHT_RATIO * self.first_norm):
            if self.stop:
                print("the run has diverged, so the checkpoint from before is kept", file=sys.stderr, flush=True)
                raise self.stop
            return
        content = io.BytesIO()  # torch's own writer reports a full disk as "file write failed"
        torch.save(plain({
            "format": FORMAT, "about": self.about, "position": (epoch, batch), "batches": len(self.dls.train),
            "state": self.history.state.state_dict(), **run_state(self.learn),
            "epoch": epoch_state(self.learn, self.history)}), content)
        with atomic_write(self.path) as tmp:
            tmp.write_bytes(content.getbuffer())
        self.last = time.monotonic()
        if self.stop:
            raise self.stop


@contextmanager
def checkpoint_error(path: Path):
    "Whatever the parts of a checkpoint raise that do not fit the run is a CheckpointError."
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as e:
        raise CheckpointError(f"{path} does not fit this run ({type(e).__name__}: {' '.join(str(e).split())[:150]}); "
                              f"--restart starts it from scratch") from e


def load(path: Path) -> dict:
    "A checkpoint, its tensors on the CPU. Raises CheckpointError."
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        form = saved["format"]
    except OSError:
        raise
    except Exception as e:  # torch raises whatever the broken part raises
        raise CheckpointError(f"{path} is no checkpoint, or a broken one ({type(e).__name__}: "
                              f"{' '.join(str(e).split())[:100]}); --restart starts the run from scratch") from None
    if form != FORMAT:
        raise CheckpointError(f"{path} has format {form}, this cifar_fast reads {FORMAT}; finish that run with the "
                              f"version that started it, or start from scratch with --restart")
    if missing := [key for key in SAVED if key not in saved]:
        raise CheckpointError(f"{path} is incomplete: it lacks {', '.join(missing)}; --restart starts the run from "
                              f"scratch")
    if not is_valid(saved):
        raise CheckpointError(f"{path} is damaged: its description of the run is not one; --restart starts the run "
                              f"from scratch")
    with checkpoint_error(path):
        TrainState().load_state_dict(saved["state"])
    return saved


def is_valid(saved: dict) -> bool:
    "Whether the parts that are read before the run is built have the types and keys they should have."
    about, position = saved["about"], saved["position"]
    return (isinstance(about, dict) and {"lr", "typed"} <= about.keys()
            and all(isinstance(about.get(k), dict) for k in ("recipe", "machine", "versions"))
            and isinstance(given := about.get("given"), list) and all(isinstance(g, str) for g in given)
            and {"arch", "lr", "opt", "epochs"} <= about["recipe"].keys()
            and isinstance(position, tuple) and len(position) == 2 and all(type(n) is int and n >= 0 for n in position))


# ---------------------------------------------------------------- what a run consists of


def run_state(learn) -> dict[str, Any]:
    "Weights, optimizer, callbacks, Recorder and RNGs: all that outlives an epoch, beside the `TrainState`."
    return {"model": learn.model.state_dict(), "optimizer": learn.opt.state_dict(),
            "callbacks": {cb.name: cb.state_dict() for cb in stateful(learn)}, "recorder": recorded(learn.recorder),
            "train_iter": learn.train_iter, "rng": rng_state()}


def restore_run(learn, history: History, saved: dict, changed: bool = False) -> list[str]:
    """Load what was saved; returns a line for each callback that has no saved state and starts here.

    With a `changed` recipe its own rates hold, not the saved ones, and a schedule is stepped to where it would be.
    """
    started = []
    learn.model.load_state_dict(saved["model"])
    restore_optimizer(learn.opt, saved["optimizer"], keep_hypers=changed)
    restore_recorder(learn.recorder, saved["recorder"])
    history.load_state_dict(saved["state"])
    for cb in stateful(learn):
        if changed and cb.follows_recipe:
            cb.catch_up(*saved["position"], saved["batches"])
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
        for key, value in fresh.items():
            if not same_kind(group.get(key), value):
                raise ValueError(f"the optimizer's group {i} has {key}={group.get(key)!r}")
        if keep_hypers:
            group.update(fresh)
        entries = [(p, opt.opt.state[p]) for p in group["params"] if p in opt.opt.state]
        for p, entry in entries:
            if not isinstance(entry, dict) or entry.keys() != entries[0][1].keys():
                raise ValueError(f"the optimizer's state of a parameter {tuple(p.shape)} is damaged")
            for key, value in entry.items():
                if not (torch.is_tensor(value) and value.shape in (p.shape, torch.Size())):
                    raise ValueError(f"the optimizer's {key} of a parameter {tuple(p.shape)} is damaged")


def same_kind(value: Any, like: Any) -> bool:
    "Whether a hyperparameter can stand for another: a number for a number, else the same type and length."
    if isinstance(like, int | float) and not isinstance(like, bool):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is type(like) and (not isinstance(like, tuple) or (
        len(value) == len(like) and all(map(same_kind, value, like))))


def groups(opt) -> list[dict]:
    "Of a torch optimizer inside fastai's wrapper."
    return opt.opt.param_groups


def has_diverged(learn, max_norm: float) -> bool:
    "Whether loss or weights are non-finite or out of bounds: what is saved now could only end badly."
    return not (loss_ratio(learn.recorder) < MAX_LOSS_RATIO and weight_norm(learn.model) < max_norm)


def weight_norm(model) -> float:
    "Of all weights as one vector; infinite or NaN where one of them is."
    return float(torch.stack([p.detach().float().norm() for p in model.parameters()]).norm())


def epoch_state(learn, history: History) -> dict[str, Any]:
    "What starts again with every epoch: how far it is, and the sums of the metrics."
    sums = {m.name: {k: v for k, v in vars(m).items() if isinstance(v, int | float | torch.Tensor)}
            for m in learn.recorder.metrics}
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
    "Of Python, NumPy and torch on every device."
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
