"""What trackers share: they only report, so no error in one of them ends a training."""

from __future__ import annotations

import warnings
from functools import partial, wraps
from pathlib import Path
from typing import Any

from cifar_fast.training.state import TrainState

GUARDED = ("open", "before_fit", "before_train", "before_batch", "after_batch", "after_epoch", "after_fit", "attach",
           "close")
"The methods of a tracker in which a full disk, a network or a server may fail."


def guarded(method):
    "The method, in which the first error is a warning; after it none is called."
    @wraps(method)
    def call(self, *args, **kwargs):
        if self.failed:
            return None
        try:
            return method(self, *args, **kwargs)
        except Exception as e:  # of a library, a disk or a server: of any kind
            self.failed = True
            text = " ".join(str(e).split())[:200]
            # Shown as a warning of ours, not of fastai's, which calls it and whose warnings the command line hides.
            warnings.warn(f"track={self.kind} stops here ({type(e).__name__}: {text}); the training goes on without "
                          f"it. What it has recorded is in {self.folder / self.kind}", stacklevel=1)
            return None
    return call


class Tracker:
    """Mixed into a callback of fastai's, before it: when it is called, and what an error in it does.

    It logs rows of `state`, which has the accuracy of averaged weights too, and writes below the run's folder.
    """

    order = 57  # after History (55), whose rows it logs, and before those that stop
    run_valid = False  # the loss of training is no news while it validates
    failed = False
    state: TrainState | None = None  # set by `fit`
    kind: str  # as in the recipe's `track`
    folder: Path  # of the run's files

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        for name in filter(partial(hasattr, cls), GUARDED):
            setattr(cls, name, guarded(getattr(cls, name)))

    def open(self) -> None:
        "Called before the first step."

    def attach(self, card: dict[str, Any], facts: list[tuple[str, str]], row: dict[str, Any],
               figures: list[Path]) -> None:
        "Add the finished run's card, what is to be known of it at a glance, its row of runs.csv, and PNG files."
        raise NotImplementedError

    def close(self, finished: bool) -> None:
        "Called in the end, also of a run that stops."
        raise NotImplementedError

    @property
    def place(self) -> str:
        "Where it is to be seen: a web page, or a folder in the run's; empty where nothing is recorded."
        return self.kind

    def measured(self) -> dict[str, float]:
        "The row of the last epoch, without its number."
        return {name: value for name, value in self.state.rows[-1].items() if name != "epoch"}
