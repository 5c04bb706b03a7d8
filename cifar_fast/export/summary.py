"""A card in the terminal: the lines at the end of a run, and the last JSON record."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Exported
from cifar_fast.export.files import SOURCE
from cifar_fast.utils.tables import aligned


def result_text(card: Card) -> str:
    "The accuracy of a run, in a line or two."
    took = f"{card.seconds.training:.0f} s of training" if card.seconds else "no time taken"
    metrics = card.metrics
    if not metrics:
        return f"no accuracy: the dataset has no test images and valid=0 holds none out; valid=0.1 does ({took})"
    lines = []
    if card.selected_on_test:
        (last, at_last), (best, at_best), *_ = card.accuracies()
        lines.append(f"{last} {at_last:.2%}, {best} {at_best:.2%}")
    balanced = "" if metrics.balanced_accuracy is None else f", balanced {metrics.balanced_accuracy:.2%}"
    tta = "" if metrics.accuracy_tta is None else f", TTA (image and mirror) {metrics.accuracy_tta:.2%}"
    raw = "" if metrics.accuracy_without_ema is None else f", without EMA {metrics.accuracy_without_ema:.2%}"
    best = " of the best epoch" if card.recipe.get("keep") == "best" else ""
    images = metrics.interval or f"n = {metrics.n:,}"
    lines.append(f"{card.split} accuracy{best} {metrics.accuracy:.2%}{balanced}{tta}{raw}  ({images}; {took})")
    return "\n".join(lines)


def summary(card: Card, folder: Path) -> str:
    "What a run prints at its end: accuracy, where its outputs are, and what to do next."
    lines, quoted = [result_text(card)], shlex.quote(str(folder))
    if card.split == "held-out" and card.data.test:
        lines.append(f"test was not used; python -m cifar_fast evaluate {quoted} evaluates on it")
    lines.append(f"saved: {folder}/ (model, card, history, figures), a row in {folder.parent / 'runs.csv'}")
    if (page := folder / "report.html").is_file():
        lines.append(f"open: {page}")
    if card.tracked:
        lines.append(where_tracked(card.tracked, folder))
    # The model is known once that file has run.
    own = f" --recipe {shlex.quote(str(folder / SOURCE))}" if card.source_file else ""
    lines.append(f"next: python -m cifar_fast predict {quoted} IMAGE…{own}, or serve {quoted}{own}")
    return "\n".join(lines)


def where_tracked(tracked: dict[str, str], folder: Path) -> str:
    "How to see what the trackers of a run have: a command or a web page each."
    commands = {"tensorboard": "tensorboard --logdir {}", "wandb": "wandb sync {}/offline-run-*"}
    return "\n".join(f"{kind}: {place}" if "://" in place else
                     f"{kind}: {commands[kind].format(shlex.quote(str(folder / place)))}"
                     for kind, place in tracked.items() if kind in commands or "://" in place)


def last_record(card: Card, folder: Path) -> dict:
    "The result for a program: the object that follows those of the epochs."
    figures = {k: v for k, v in asdict(card.metrics).items()
               if (k.startswith("accuracy") or k == "n") and v is not None} if card.metrics else {}
    if card.metrics and card.metrics.balanced_accuracy is not None:
        figures["balanced_accuracy"] = card.metrics.balanced_accuracy
    return {"done": True, "export": str(folder), "split": card.split, "selected_on_test": card.selected_on_test,
            **figures, "best_epoch": card.best_epoch and asdict(card.best_epoch),
            "seconds": card.seconds and asdict(card.seconds)}


def exported_cells(files: Mapping[str, Exported]) -> list[list[str]]:
    "A heading, and a row for each file that a run was exported to."
    head = ["file", "target", "bytes", "accuracy", "torch's", "differ", "batch 1", "batch 125"]
    return [head, *([name, row.target, f"{row.bytes:,}", share(row.accuracy), share(row.accuracy_torch),
                     f"{row.differ:,} of {row.n:,}" if row.n else "–", *(ratio(row, batch) for batch in ("1", "125"))]
                    for name, row in files.items())]


def exported_table(files: Mapping[str, Exported]) -> list[str]:
    "Lines for a terminal."
    noise = any(row.images == "noise" for row in files.values())
    return [*aligned(exported_cells(files), left=2),
            "differ: images whose predicted class is not torch's; batch 1 and 125: images/s as a multiple of torch's",
            *(["compared on images of noise, as those of the run are not at hand"] if noise else []),
            *(f"{name}: {row.flash:,} bytes of flash, {row.arena:,} bytes of RAM (arena) in tflite-micro"
              for name, row in files.items() if row.flash and row.arena)]


def share(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{accuracy:.2%}"


def ratio(row: Exported, batch: str) -> str:
    return f"{row.speed[batch]:.1f}" if batch in row.speed else "–"
