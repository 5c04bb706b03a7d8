"""What a run shows while it trains: a bar on a terminal, plain lines in a pipe, JSON lines for a program."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

from fastai.callback.core import Callback
from tqdm import tqdm

from cifar_fast.training.state import TrainState
from cifar_fast.utils.errors import SettingError

MODES = ("auto", "bars", "lines", "json", "quiet")
"auto: bars where stdout and stderr are a terminal, lines elsewhere."

COLUMNS = {  # of a row of the state: heading (above, below; {} is what validates), width, format
    "train_loss": ("train", "loss", 7, "{:.4f}"), "train_accuracy": ("train", "acc", 7, "{:.2%}"),
    "valid_loss": ("{}", "loss", 8, "{:.4f}"), "valid_accuracy": ("{}", "acc", 8, "{:.2%}"),
    "valid_ema_accuracy": ("{}", "EMA acc", 8, "{:.2%}"), "valid_balanced_accuracy": ("{}", "bal acc", 8, "{:.2%}"),
    "valid_ema_balanced_accuracy": ("{}", "EMA bal", 8, "{:.2%}"), "lr": ("", "lr", 8, "{:.2g}"),
    "seconds": ("", "s", 6, "{:.1f}"), "images_per_second": ("", "img/s", 6, "{:.0f}"),
}
EVERY = {"bars": 0.5, "lines": 10.0}  # seconds between two looks inside an epoch; a look waits for a GPU


def choose_mode(mode: str = "auto") -> str:
    "One of MODES but auto. Raises SettingError."
    if mode not in MODES:
        raise SettingError(f"log={mode!r}: choose one of {', '.join(MODES)}")
    if mode != "auto":
        return mode
    return "bars" if sys.stdout.isatty() and sys.stderr.isatty() else "lines"


class Progress(Callback):
    "A line per epoch, the best marked; within it batch, loss, accuracy, rate, images per second and time left."

    order = 56  # after History, whose rows it shows

    def __init__(
        self,
        state: TrainState,
        split: str = "held-out",  # what validates: "test" or "held-out"
        mode: str = "auto",
        out: TextIO | None = None,  # None: stdout as it is now; a run redirects what others print
    ):
        self.state, self.split, self.mode, self.out = state, split, choose_mode(mode), out or sys.stdout
        self.bar, self.has_heading, self.has_star = None, False, False

    def before_fit(self):
        self.steps, self.began = 0, None

    def before_train(self):
        self.looked = time.monotonic()
        if self.mode == "bars":
            self.bar = tqdm(total=len(self.dl), desc=self.place(), dynamic_ncols=True, leave=False, unit="batch",
                            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}")

    def after_batch(self):
        if not self.training or self.mode not in EVERY:
            return
        now, is_last = time.monotonic(), self.iter + 1 == self.n_iter
        if self.began is None:
            self.began = now  # not timed: the first step may compile
        else:
            self.steps += 1
        if self.bar is not None and (is_last or now - self.looked >= EVERY[self.mode]):
            self.bar.n = self.iter + 1
            self.bar.set_postfix_str(self.figures(now))
            self.looked = now
        elif self.bar is None and not is_last and now - self.looked >= EVERY[self.mode]:  # then comes the epoch's line
            self.print(f"{self.place()}, batch {self.iter + 1}/{self.n_iter}: {self.figures(now)}")
            self.looked = now

    def before_validate(self):
        if self.bar is not None and len(self.dl):
            self.bar.set_postfix_str(f"validating ({self.split})")

    def after_epoch(self):
        self.undo()
        row, is_best = self.state.rows[-1], self.state.is_best
        if self.mode == "json":
            self.print(json.dumps({**row, "epochs": self.n_epoch, "best": is_best}))
        elif self.mode != "quiet":
            if not self.has_heading:
                self.has_heading = True
                self.print(heading(row, self.split))
            self.has_star = self.has_star or is_best
            self.print(line(row, self.n_epoch) + (" *" if is_best else ""))

    def after_fit(self):
        if self.has_star:
            best = self.state.best
            self.print(f"* best so far; the best of all is epoch {best['epoch']}: {self.split} {self.state.watches} "
                       f"{best['accuracy']:.2%}")

    def print(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def undo(self):
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def place(self) -> str:
        return f"epoch {self.epoch + 1}/{self.n_epoch}"

    def figures(self, now: float) -> str:
        "Of the epoch so far."
        parts = [f"train loss {float(self.recorder.smooth_loss.value):.3f}"]
        if "train_accuracy" in map(str, self.recorder.metric_names):
            parts.append(f"acc {float(self.recorder.metrics[0].value):.1%}")
        parts.append(f"lr {self.opt.hypers[-1]['lr']:.2g}")
        if self.steps and now > self.began:
            rate = self.steps / (now - self.began)  # validation and saving are in it
            left = (self.n_epoch - self.epoch) * self.n_iter - self.iter - 1
            parts += [f"{rate * self.dl.bs:.0f} img/s", f"{duration(left / rate)} left"]
        return ", ".join(parts)


@contextmanager
def redirected(mode: str):
    "stdout for what a run prints as text: nowhere in a quiet run, stderr beside JSON."
    if mode == "json":
        with redirect_stdout(sys.stderr):
            yield
    elif mode == "quiet":
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield
    else:
        yield


def shown(row: dict) -> list[str]:
    "Of COLUMNS those of this row that fit into 80 columns."
    balanced = "valid_balanced_accuracy" in row or "valid_ema_balanced_accuracy" in row
    return [c for c in COLUMNS if c in row and not (balanced and c == "images_per_second")]


def heading(row: dict, split: str) -> str:
    "Two lines: what is measured on, and what."
    columns = [COLUMNS[c] for c in shown(row)]
    above = "".join(f" {above.format(split):>{width}}" for above, _, width, _ in columns)
    return (" " * 8 + above.rstrip() + "\n   epoch" + "".join(f" {below:>{width}}" for _, below, width, _ in columns))


def line(row: dict, epochs: int) -> str:
    "One epoch in less than 80 columns, under `heading`."
    cells = [f" {form.format(row[c]):>{width}}" for c in shown(row) for *_, width, form in [COLUMNS[c]]]
    return f"{row['epoch']:>4}/{epochs:<3}" + "".join(cells)


def duration(seconds: float) -> str:
    "In the unit that a reader would choose: 45 s, 12 min, 2 h 05 min."
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
