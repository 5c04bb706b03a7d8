"""A run on disk, from which it goes on bit for bit.

Draws follow from (seed, epoch, batch), so workers and Albumentations have nothing to save. A callback that knows more
than the epoch has two methods: `saved()` returns plain data and tensors, `restore(saved)` takes them back. The file is
read with `weights_only=True`: it cannot run code.
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

from cifar_fast.training.callbacks.history import loss_ratio
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import atomic_write

FORMAT = 2
"Of the file; another number is refused."

WORSE = 10
"A loss so many times its first value is not saved over a better one."

LONGER = 100
"Nor are weights so many times as long as those that the net was made with: a step too far shows there at once."

SAVED = ("about", "position", "spent", "resumes", "batches", "model", "optimizer", "callbacks", "recorder",
         "train_iter", "rng", "epoch")
"What a file of this format holds."


class CheckpointError(CifarFastError):
    "A checkpoint that cannot be continued; the message names the file and the next step."


class Checkpoint(Callback):
    "Saves the run after every `epochs` epochs and, within one, every `minutes`; goes on from `start` where given."

    order = 100  # after everything that changes a state

    def __init__(
        self,
        path: Path,
        about: dict,  # kept in the file as it is
        epochs: int = 1,  # 0 for never
        minutes: float = 0,  # since the last one, 0 for never
        start: dict | None = None,  # what `load` gave
    ):
        self.path, self.about, self.epochs, self.minutes, self.start = path, about, epochs, minutes, start
        self.began, self.spent = time.monotonic(), start["spent"] if start else 0.0
        self.resumes = start["resumes"] + 1 if start else 0
        self.stop = None  # set from outside: an exception to raise once the step is done and saved
        self.done = False  # set from outside: the fit has ended
        self.fresh = math.inf  # length of the weights that the net was made with

    def before_fit(self):
        self.last, self.fresh = time.monotonic(), length(self.learn.model)
        if self.start:
            with named(self.path):
                begun = restore_run(self.learn, self.start, self.changed())
            for line in begun:
                print(f"  {line}", flush=True)
            epoch, batch = self.start["position"]
            if self.start["batches"] != len(self.dls.train):
                batch = 0  # another number of batches: there is no such place in the epoch, which begins again
            self.learn.begin_at = self.begins = (epoch, batch)

    def before_train(self):
        if self.start and self.begins[1] and self.epoch == self.begins[0]:
            with named(self.path):
                restore_epoch(self.learn, self.start)

    def changed(self) -> bool:
        "Whether the run goes on with another recipe than it was begun with."
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
        if has_diverged(self.learn, LONGER * self.fresh):
            if self.stop:
                print("the loss has left its bounds: this is not saved over the checkpoint from before",
                      file=sys.stderr, flush=True)
                raise self.stop
            return
        content = io.BytesIO()  # torch's own writer says of a full disk that "file write failed"
        torch.save(plain({
            "format": FORMAT, "about": self.about, "position": (epoch, batch), "spent": self.seconds(),
            "resumes": self.resumes, "batches": len(self.dls.train), **run_state(self.learn),
            "epoch": epoch_state(self.learn)}), content)
        with atomic_write(self.path) as tmp:
            tmp.write_bytes(content.getbuffer())
        self.last = time.monotonic()
        if self.stop:
            raise self.stop

    def seconds(self) -> float:
        "Since the run began, without the time that it lay still."
        return self.spent + time.monotonic() - self.began


@contextmanager
def named(path: Path):
    "Whatever the parts of a checkpoint meet that do not fit the run is a CheckpointError."
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as e:
        raise CheckpointError(f"{path} does not fit this run ({type(e).__name__}: {' '.join(str(e).split())[:100]}); "
                              f"--restart begins it anew") from e


def load(path: Path) -> dict:
    "A checkpoint, its tensors on the CPU. Raises CheckpointError."
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        form = found["format"]
    except OSError:
        raise
    except Exception as e:  # torch raises whatever the broken part raises
        raise CheckpointError(f"{path} is no checkpoint, or a broken one ({type(e).__name__}: "
                              f"{' '.join(str(e).split())[:100]}); --restart begins the run anew") from None
    if form != FORMAT:
        raise CheckpointError(f"{path} has format {form}, this cifar_fast reads {FORMAT}; finish that run with the "
                              f"version that began it, or begin anew with --restart")
    if missing := [key for key in SAVED if key not in found]:
        raise CheckpointError(f"{path} is no whole checkpoint: it lacks {', '.join(missing)}; --restart begins the run "
                              f"anew")
    if not sound(found):
        raise CheckpointError(f"{path} is no checkpoint of a run: what it says of itself cannot be; --restart begins "
                              f"the run anew")
    return found


def sound(found: dict) -> bool:
    "Whether the parts that are read before the run is built are what they should be."
    about, position = found["about"], found["position"]
    return (isinstance(about, dict) and {"lr", "typed"} <= about.keys()
            and all(isinstance(about.get(k), dict) for k in ("recipe", "machine", "versions"))
            and isinstance(given := about.get("given"), list) and all(isinstance(g, str) for g in given)
            and {"arch", "lr", "opt", "epochs"} <= about["recipe"].keys()
            and isinstance(position, tuple) and len(position) == 2 and all(type(n) is int and n >= 0 for n in position))


# ---------------------------------------------------------------- what a run consists of


def run_state(learn) -> dict[str, Any]:
    "Weights, optimizer, callbacks, Recorder and RNGs: all that outlives an epoch."
    return {"model": learn.model.state_dict(), "optimizer": learn.opt.state_dict(),
            "callbacks": {cb.name: cb.saved() for cb in saving(learn)}, "recorder": recorded(learn.recorder),
            "train_iter": learn.train_iter, "rng": rng_state()}


def restore_run(learn, state: dict, changed: bool = False) -> list[str]:
    """Take the state back; returns a line for each part that has none and begins anew.

    With a `changed` recipe its own rates hold, not the saved ones, and a schedule is stepped to where it would be.
    """
    begun = []
    learn.model.load_state_dict(state["model"])
    fresh = [{k: v for k, v in group.items() if k != "params"} for group in groups(learn.opt)]
    learn.opt.load_state_dict(state["optimizer"])
    record_again(learn.recorder, state["recorder"])
    if changed:
        for group, own in zip(groups(learn.opt), fresh, strict=True):
            group.update(own)
    for cb in saving(learn):
        if changed and hasattr(type(cb), "catch_up"):
            cb.catch_up(*state["position"], state["batches"])
        elif cb.name in state["callbacks"]:
            cb.restore(state["callbacks"][cb.name])
        else:
            cb.before_fit()  # again, now with the weights of the run
            begun.append(f"{cb.name} begins here: the run had none")
    learn.train_iter = state["train_iter"]
    set_rng_state(state["rng"])
    return begun


def groups(opt) -> list[dict]:
    "Of a torch optimizer inside fastai's wrapper."
    return opt.opt.param_groups


def has_diverged(learn, longest: float) -> bool:
    "Whether loss or weights have left their bounds, or are no numbers: what is saved now could only end badly."
    return not (loss_ratio(learn.recorder) < WORSE and length(learn.model) < longest)


def length(model) -> float:
    "Of all weights as one vector; infinite or nan where one of them is."
    return float(torch.stack([p.detach().float().norm() for p in model.parameters()]).norm())


def epoch_state(learn) -> dict[str, Any]:
    "What begins anew with every epoch: how far it is, and the sums of the metrics."
    sums = {m.name: {k: v for k, v in vars(m).items() if isinstance(v, int | float | torch.Tensor)}
            for m in learn.recorder.metrics}
    history = {k: v for cb in learn.cbs if hasattr(type(cb), "saved_epoch") for k, v in cb.saved_epoch().items()}
    return {"pct_train": learn.pct_train, "metrics": sums, "history": history}


def restore_epoch(learn, state: dict) -> None:
    state = state["epoch"]
    learn.pct_train = state["pct_train"]
    for metric in learn.recorder.metrics:
        vars(metric).update(state["metrics"].get(metric.name, {}))
    for cb in learn.cbs:
        if hasattr(type(cb), "restore_epoch"):
            cb.restore_epoch(state["history"])


def saving(learn) -> list[Callback]:
    # Asked of the type: an attribute that a callback lacks is looked up in the Learner, and from there in the model.
    return [cb for cb in learn.cbs if hasattr(type(cb), "saved")]


def recorded(recorder) -> dict[str, Any]:
    smooth = recorder.smooth_loss
    losses = torch.tensor([float(x) for x in recorder.losses]) if recorder.losses else None
    return {"lrs": recorder.lrs, "iters": recorder.iters, "losses": losses,
            "values": [list(v) for v in recorder.values], "count": smooth.count, "val": smooth.val}


def record_again(recorder, state: dict) -> None:
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
