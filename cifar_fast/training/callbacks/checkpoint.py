"""A run on disk, from which it resumes bit for bit (on a CPU; on a GPU as far as its own kernels repeat sums).

Random numbers follow from (seed, epoch, batch), so workers and Albumentations have no state to save. Callbacks with
state are `StatefulCallback`s. The file is read with `weights_only=True`: it cannot run code.
"""

from __future__ import annotations

import io
import math
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from fastai.callback.core import Callback

from cifar_fast.training.callbacks.history import History
from cifar_fast.training.run_state import (
    SUMS,
    epoch_state,
    has_diverged,
    plain,
    restore_epoch,
    restore_run,
    run_state,
    weight_norm,
)
from cifar_fast.training.state import TrainState
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import atomic_write
from cifar_fast.utils.ranks import gathered, here, wait_for_all

FORMAT = 3
"Of the file; another number is refused."

MAX_WEIGHT_RATIO = 100
"Weights of so many times their initial norm are not saved either: they show divergence at once."

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
        path: Path,  # written by the first of several processes alone
        about: dict,  # saved in the file as it is
        epochs: int = 1,  # 0 for never
        minutes: float = 0,  # since the last one, 0 for never
        start: dict | None = None,  # what `load` gave
    ):
        self.path, self.about, self.epochs, self.minutes, self.start = path, about, epochs, minutes, start
        self.history: History | None = None  # set by `fit`: the state of the run and of its epoch
        self.parallel = None  # set by `fit`: what several processes have agreed on
        self.stop = None  # set from outside: an exception to raise after the step is saved
        self.done = False  # set from outside: the fit has ended
        self.first_norm = math.inf  # of the initial weights

    def before_fit(self):
        self.last, self.first_norm = time.monotonic(), weight_norm(self.learn.model)
        if self.start:
            with checkpoint_error(self.path):
                fresh = restore_run(self.learn, self.history, self.start, self.changed())
            for line in fresh:
                print(f"  {line}", flush=True)
            epoch, batch = self.start["position"]
            if self.start["batches"] != len(self.dls.train):
                batch = 0  # with another number of batches the epoch starts again
            self.learn.start_at = self.resumes_at = (epoch, batch)

    def before_train(self):
        if self.start and self.resumes_at[1] and self.epoch == self.resumes_at[0]:
            with checkpoint_error(self.path):
                restore_epoch(self.learn, self.history, own_part(self.start["epoch"], self.start.get("others", [])))
            if self.changed():  # the saved one is a fraction of the epochs that there were then
                epoch, batch = self.resumes_at
                self.learn.pct_train = (epoch + batch / len(self.dls.train)) / self.n_epoch

    def changed(self) -> bool:
        "Whether the run resumes with another recipe than it was started with."
        return any(self.start["about"][k] != self.about[k] for k in ("recipe", "lr"))

    def flags(self) -> tuple[bool, bool]:
        "Whether this process has to stop, and whether a checkpoint is due."
        return self.stop is not None, bool(self.minutes and time.monotonic() - self.last >= 60 * self.minutes)

    @property
    def stops(self) -> bool:
        "Whether the run stops here: several processes do after the same step."
        return self.parallel.stop if self.parallel else self.stop is not None

    def after_batch(self):
        if self.training and (self.stops or (self.parallel.due if self.parallel else self.flags()[1])):
            self.save(self.epoch, self.iter + 1)

    def after_epoch(self):
        # The last epoch is always saved: a run that dies in its export need not train again.
        if self.stops or self.epoch + 1 == self.n_epoch or (self.epochs and (self.epoch + 1) % self.epochs == 0):
            self.save(self.epoch + 1, 0)

    def after_cancel_fit(self):
        self.save(self.n_epoch, 0)  # stopped early, before this `after_epoch`: no epoch remains

    def save(self, epoch: int, batch: int) -> None:
        "Save after `batch` batches of `epoch`. A run that has diverged keeps its former checkpoint."
        if has_diverged(self.learn, MAX_WEIGHT_RATIO * self.first_norm):
            if self.stops:
                print("the run has diverged, so the checkpoint from before is kept", file=sys.stderr, flush=True)
                raise self.stop
            return
        epoch_states = gathered(plain(epoch_state(self.learn, self.history)))
        if here().first:
            self.write(epoch, batch, epoch_states)
        self.last = time.monotonic()
        if self.stops:
            wait_for_all()  # or the first one would be ended while it writes
            raise self.stop

    def write(self, epoch: int, batch: int, epoch_states: list[dict]) -> None:
        content = io.BytesIO()  # torch's own writer reports a full disk as "file write failed"
        torch.save(plain({
            "format": FORMAT, "about": self.about, "position": (epoch, batch), "batches": len(self.dls.train),
            "state": self.history.state.state_dict(), **run_state(self.learn),
            "epoch": epoch_states[0], "others": epoch_states[1:]}), content)
        with atomic_write(self.path) as tmp:
            tmp.write_bytes(content.getbuffer())


def own_part(first: dict, others: list[dict]) -> dict:
    """The part of a saved epoch that this process continues, one for each process.

    Where there are more or fewer processes now, the first one continues the sums of all.
    """
    parts = [first, *others]
    if len(parts) == here().count:
        return parts[here().rank]
    return {**first, "metrics": added_up([part["metrics"] for part in parts]) if here().first else {}}


def added_up(parts: list[dict]) -> dict:
    return {name: {k: sum(part[name][k] for part in parts) if k in SUMS else v for k, v in values.items()}
            for name, values in parts[0].items()}


@contextmanager
def checkpoint_error(path: Path):
    "Turns whatever a checkpoint that does not fit the run raises into a CheckpointError."
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
