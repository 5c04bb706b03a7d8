"""What a run shows while it goes: a bar on a terminal, plain lines in a pipe, JSON lines for a program."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager, redirect_stdout

from fastai.callback.core import Callback
from tqdm import tqdm

from cifar_fast.training.callbacks.stopping import watched

MODES = ("auto", "bars", "lines", "json", "quiet")
"auto: bars where stdout and stderr are a terminal, lines elsewhere."

COLUMNS = {  # of a row of History: heading, width, how it is shown
    "train_loss": ("loss", 7, "{:.4f}"), "train_accuracy": ("acc", 7, "{:.2%}"),
    "valid_loss": ("v.loss", 7, "{:.4f}"), "valid_accuracy": ("v.acc", 7, "{:.2%}"),
    "valid_ema_accuracy": ("ema acc", 7, "{:.2%}"), "lr": ("lr", 8, "{:.2g}"),
    "seconds": ("s", 6, "{:.1f}"), "images_per_second": ("img/s", 6, "{:.0f}"),
}
EVERY = {"bars": 0.5, "lines": 10.0}  # seconds between two looks inside an epoch; a look waits for a GPU


def choose_mode(mode: str = "auto") -> str:
    "One of MODES but auto. Raises ValueError."
    if mode not in MODES:
        raise ValueError(f"log={mode!r}: choose one of {', '.join(MODES)}")
    if mode != "auto":
        return mode
    return "bars" if sys.stdout.isatty() and sys.stderr.isatty() else "lines"


class Progress(Callback):
    "A line an epoch, the best marked; and within it batch, loss, accuracy, rate, images a second and time left."

    order = 56  # after History, whose rows it shows

    def __init__(self, mode: str = "auto"):
        self.mode, self.out = choose_mode(mode), sys.stdout  # as it is now: a run may send others' words elsewhere
        self.bar = self.headed = self.starred = None

    def before_fit(self):
        self.column = watched([*map(str, self.recorder.metric_names)])
        self.steps, self.began = 0, None

    def before_train(self):
        self.looked = time.monotonic()
        if self.mode == "bars":
            self.bar = tqdm(total=len(self.dl), desc=self.place(), dynamic_ncols=True, leave=False, unit="batch",
                            bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}")

    def after_batch(self):
        if not self.training or self.mode not in EVERY:
            return
        now = time.monotonic()
        if self.began is None:
            self.began = now  # the first step may compile: it says nothing about the others
        else:
            self.steps += 1
        if now - self.looked < EVERY[self.mode] or self.iter + 1 == self.n_iter:  # the epoch's own line comes next
            return
        self.looked = now
        if self.bar is not None:
            self.bar.n = self.iter + 1
            self.bar.set_postfix_str(self.inside(now))
        else:
            print(f"{self.place()}, batch {self.iter + 1}/{self.n_iter}: {self.inside(now)}", file=self.out, flush=True)

    def before_validate(self):
        if self.bar is not None:
            self.bar.set_postfix_str("validating")

    def after_epoch(self):
        self.undo()
        *former, row = self.learn.history.rows
        is_best = self.column in row and all(row[self.column] > other.get(self.column, -1) for other in former)
        if self.mode == "json":
            print(json.dumps({**row, "epochs": self.n_epoch, "best": is_best}), file=self.out, flush=True)
        elif self.mode != "quiet":
            if not self.headed:
                self.headed = True
                print(heading(row), file=self.out, flush=True)
            self.starred = self.starred or is_best
            print(line(row, self.n_epoch) + (" *" if is_best else ""), file=self.out, flush=True)

    def after_fit(self):
        rows = [row for row in self.learn.history.rows if self.column in row]
        if self.starred:
            best = max(rows, key=lambda row: row[self.column])  # the first of equal ones, as marked
            print(f"* the best so far: in the end epoch {best['epoch']}, {best[self.column]:.2%}", file=self.out,
                  flush=True)

    def undo(self):
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def place(self) -> str:
        return f"epoch {self.epoch + 1}/{self.n_epoch}"

    def inside(self, now: float) -> str:
        "Figures of the epoch so far."
        names = [str(n) for n in self.recorder.metric_names]
        said = [f"loss {float(self.recorder.smooth_loss.value):.3f}"]
        if "train_accuracy" in names:
            said.append(f"acc {float(self.recorder.metrics[0].value):.1%}")
        said.append(f"lr {self.opt.hypers[-1]['lr']:.2g}")
        if self.steps and now > self.began:
            rate = self.steps / (now - self.began)  # validation and saving are in it
            left = (self.n_epoch - self.epoch) * self.n_iter - self.iter - 1
            said += [f"{rate * self.dl.bs:.0f} img/s", f"{duration(left / rate)} left"]
        return ", ".join(said)


@contextmanager
def words(mode: str):
    "stdout for whatever is told in words: none of it in a quiet run, on stderr beside JSON."
    if mode == "json":
        with redirect_stdout(sys.stderr):
            yield
    elif mode == "quiet":
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield
    else:
        yield


def heading(row: dict) -> str:
    shown = [(name, width) for column, (name, width, _) in COLUMNS.items() if column in row]
    return "   epoch" + "".join(f" {name:>{width}}" for name, width in shown)


def line(row: dict, epochs: int) -> str:
    "One epoch in less than 80 columns, under `heading`."
    shown = [f" {form.format(row[c]):>{width}}" for c, (_, width, form) in COLUMNS.items() if c in row]
    return f"{row['epoch']:>4}/{epochs:<3}" + "".join(shown)


def duration(seconds: float) -> str:
    "In the unit that a reader would choose: 45 s, 12 min, 2 h 05 min."
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
