"""What a sweep shows, as text: facts, the table of its trials, the command that started it. Imports nothing heavy."""

from __future__ import annotations

import shlex
from pathlib import Path

from cifar_fast.sweep.snapshot import Snapshot, Trial

REPORT = "report.html"
FIGURES = {
    "history.png": "Accuracy of each trial, in order; the line is the best so far",
    "curves.png": "Held-out accuracy by epoch; a cross marks where a trial was pruned or diverged",
    "parallel.png": "Parallel coordinates: a line is a trial, its colour the accuracy; dashed ones were pruned or "
                    "diverged",
    "importance.png": "Importance: how much of the variance of accuracy each setting explains (fANOVA)",
}

MEANING = ("Accuracy is on images held out of training, where classes are unequal the balanced one (the mean of the "
           "classes); the test set was not used. The best of many is a little too good: what it is worth is its test "
           "accuracy, once (--final).")


def lead(snapshot: Snapshot) -> str:
    state = {"finished": "finished", "running": "running", "stopped": "stopped, --resume continues it"}
    return " · ".join([f"sweep of {snapshot.recipe}", *([" ".join(snapshot.fixed)] if snapshot.fixed else []),
                       f"sampler {snapshot.sampler}, pruner {snapshot.pruner}",
                       state.get(snapshot.state, snapshot.state)])


def facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    best = snapshot.best
    parts = [("best held-out accuracy", f"{best.accuracy:.2%}"), ("best trial", str(best.number))] if best else []
    parts.append(("trials", f"{snapshot.done} of {len(snapshot.trials)}"))
    for state in ("running", "pruned", "diverged", "failed"):
        if count := snapshot.count(state):
            parts.append((state, str(count)))
    return parts


def ordered(snapshot: Snapshot) -> list[Trial]:
    "The complete ones by accuracy, then the others by their state, and by the best that they have reached."
    def place(t: Trial):
        rank = ("complete", "running", "pruned", "diverged", "failed", "waiting")
        return rank.index(t.state) if t.state in rank else len(rank), -(t.best or 0), t.number

    return sorted(snapshot.trials, key=place)


def rows(snapshot: Snapshot) -> list[list[str]]:
    "The table of trials, its heading first; those that wait have a line together."
    keys = list(snapshot.space)
    body = [[str(t.number), said(t), "–" if t.best is None else f"{t.best:.2%}",
             *(short(t.params.get(k)) for k in keys), str(max(map(int, t.curve), default=0)),
             "–" if t.seconds is None else f"{t.seconds:,.0f}"]
            for t in ordered(snapshot) if t.state != "waiting" or t.params]
    if waiting := sum(t.state == "waiting" and not t.params for t in snapshot.trials):
        body.append([f"{waiting} more", "waiting", "–", *("" for _ in keys), "", ""])
    return [["trial", "state", "accuracy", *keys, "epochs run", "seconds"], *body]


def said(t: Trial) -> str:
    "The state, with what happened."
    notes = [t.error[:160] if t.state in ("failed", "diverged") else "",
             f"resumed {t.resumed}×" if t.resumed else "", f"{t.deaths} workers died" if t.deaths > 1 else
             "a worker died" if t.deaths else ""]
    notes = [n for n in notes if n]
    return t.state + (f" ({'; '.join(notes)})" if notes else "")


def short(value) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def places(folder: Path, shared: bool) -> str:
    "Where a sweep in `folder` is kept, as options of its command; shared: by a storage of another machine."
    where = shlex.join([f"name={folder.name}", f"exports={folder.parent.parent}"])
    return f" {where}" + (" --storage …" if shared else "")


def command(snapshot: Snapshot, more: str = "") -> str:
    "The command that started the sweep."
    words = [snapshot.recipe, *(f"{k}={v}" for k, v in snapshot.space.items()), *snapshot.fixed]
    return (f"python -m cifar_fast sweep {shlex.join(words)} --trials {len(snapshot.trials)}"
            f" --sampler {snapshot.sampler} --pruner {snapshot.pruner}{more}")
