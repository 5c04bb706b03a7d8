"""How far a run is and what it has measured: the record that progress, stopping, schedules and the card read."""

from __future__ import annotations

import math
import time
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

MEMORY_FORMATS = ("contiguous", "channels_last")
"Of images and convolution weights: NCHW and NHWC."


def accuracy_column(columns: Container[str]) -> str:
    "That of the weights that will be exported, with EMA the averaged ones."
    return "valid_ema_accuracy" if "valid_ema_accuracy" in columns else "valid_accuracy"


def watched(columns: Container[str]) -> str:
    "The column to select by: that accuracy, or the balanced one, which is measured where classes are unequal."
    column = accuracy_column(columns)
    balanced = column.replace("_accuracy", "_balanced_accuracy")
    return balanced if balanced in columns else column


@dataclass
class TrainState:
    """Written by `callbacks.history.History` only, read by all others.

    Weights, optimizer, schedules and data are no part of it: they have a `state_dict` of their own.
    """

    rows: list[dict[str, float]] = field(default_factory=list)  # one per epoch: losses, accuracies, lr, seconds
    hypers: list[tuple[float, float | None]] = field(default_factory=list)  # (learning rate, momentum) of each step
    mix_counts: dict[str, int] = field(default_factory=dict)  # batches by kind of mixing; empty for a run without
    resumes: int = 0
    memory_format: str = "contiguous"  # of MEMORY_FORMATS
    format_speeds: dict[str, float] = field(default_factory=dict)  # images per second of each, where they were timed
    seconds_before: float = 0.0  # spent until the last resume
    started: float = field(default_factory=time.monotonic)  # of this process's clock, so not saved

    @property
    def epoch(self) -> int:
        "Epochs done."
        return len(self.rows)

    @property
    def step(self) -> int:
        "Steps done, over all epochs."
        return len(self.hypers)

    @property
    def seconds(self) -> float:
        "Since the run was started, without the time between a stop and its resume."
        return self.seconds_before + time.monotonic() - self.started

    @property
    def best(self) -> dict[str, float] | None:
        "{'epoch', 'accuracy'} of the highest watched accuracy, the first of equal ones; None without validation."
        column = watched(self.rows[-1]) if self.rows else ""
        measured = [row for row in self.rows if column in row]  # a changed recipe may have resumed with another column
        row = max(measured, key=lambda row: row[column], default=None)
        return row and {"epoch": row["epoch"], "accuracy": row[column]}

    @property
    def watches(self) -> str:
        "What `best` is the highest of."
        return "balanced accuracy" if self.rows and "balanced" in watched(self.rows[-1]) else "accuracy"

    @property
    def is_best(self) -> bool:
        "Whether the last epoch is the best one so far."
        return self.best is not None and self.best["epoch"] == self.rows[-1]["epoch"]

    def frame(self):
        "The rows as a `pandas.DataFrame`."
        import pandas as pd

        return pd.DataFrame(self.rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "hypers": self.hypers, "mix_counts": dict(self.mix_counts),
                "resumes": self.resumes, "memory_format": self.memory_format,
                "format_speeds": dict(self.format_speeds), "seconds": self.seconds}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        "Take over what `state_dict` gave. Raises ValueError naming the entry that cannot be one."
        require(saved, "rows", lambda v: isinstance(v, list) and all(
            isinstance(row, dict) and "epoch" in row and all(map(is_number, row.values())) for row in v))
        require(saved, "hypers", lambda v: isinstance(v, list) and all(
            isinstance(h, tuple) and len(h) == 2 and is_number(h[0]) for h in v))
        require(saved, "mix_counts", lambda v: isinstance(v, dict) and all(map(is_count, v.values())))
        require(saved, "resumes", is_count)
        require(saved, "memory_format", lambda v: v in MEMORY_FORMATS)
        require(saved, "format_speeds", lambda v: isinstance(v, dict) and all(map(is_number, v.values())))
        require(saved, "seconds", lambda v: is_number(v) and 0 <= v < math.inf)
        self.rows, self.hypers = [dict(row) for row in saved["rows"]], list(saved["hypers"])
        self.mix_counts, self.resumes = dict(saved["mix_counts"]), saved["resumes"]
        self.memory_format, self.format_speeds = saved["memory_format"], dict(saved["format_speeds"])
        self.seconds_before = saved["seconds"]


def require(saved: Any, key: str, valid) -> None:
    if not isinstance(saved, dict) or key not in saved or not valid(saved[key]):
        raise ValueError(f"the entry {key!r} of the run's state is missing or damaged")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
