"""The lines of a summary as text of at most 100 columns, with notes below where a figure needs a word."""

from __future__ import annotations

import re
import textwrap

import pandas as pd

from cifar_fast.reporting.results.summary import selected
from cifar_fast.utils.statistics import interval_text

WIDTH = 100
HEAD = ("recipe", "data", "accuracy %", "n", "beside it", "epochs", "train s", "85% at s", "device", "date", "commit")


def terminal(lines: pd.DataFrame) -> str:
    "Accuracy and beside it TTA accuracy; of reproductions the last epoch's, beside it the best one (marked)."
    table = [HEAD, *(cells(line) for _, line in lines.iterrows())]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEAD))]
    left = {0, 1, 8, 9, 10}
    text = [" ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            .rstrip() for row in table]
    notes = ["accuracy: mean±standard deviation (n−1) over n seeds; beside it TTA accuracy (image and mirror)",
             "*  the last epoch's accuracy, and beside it the best one, which was selected on test",
             *(note for _, line in lines.iterrows() if (note := remark(line)))]
    return "\n".join([*text, "", *(textwrap.fill(n, WIDTH, subsequent_indent="   ") for n in notes)])


def cells(line) -> tuple[str, ...]:
    name = textwrap.shorten(line["recipe"], 16, placeholder="…")
    if not line["n"]:
        return name, "", "not run", *[""] * (len(HEAD) - 3)
    if selected(line):
        first, beside = percent(line, "last_accuracy"), f"{percent(line, 'best_accuracy')}*"
    else:
        first, beside = percent(line, "accuracy"), percent(line, "accuracy_tta")
    data = textwrap.shorten(line["data"], 10, placeholder="…")
    return (name, data, first, str(line["n"]), beside, whole(line["epochs"]), spent(line),
            whole(line["seconds_to_85"]), short(line["device"]), line["date"][2:], line["commit"][:7])


def remark(line) -> str:
    "What has to be known of a line beside its figures; '' where nothing has."
    if not line["n"]:
        return ""
    notes = []
    if pd.notna(line["current"]) and not line["current"]:
        notes.append(f"not the recipe as it stands, but {line['settings'] or 'an earlier state of it'}")
    elif line["settings"]:
        notes.append(line["settings"])
    if line["split"] == "held-out":
        notes.append("measured on a held-out part of train")
    if interval := interval_text(shown_accuracy(line), line["images"]):
        notes.append(interval)
    if averaging_matters(line):
        notes.append(f"averaged weights; without EMA {percent(line, 'accuracy_without_ema')} %")
    return f"{line['recipe']}: {'; '.join(notes)}" if notes else ""


def shown_accuracy(line) -> float | None:
    "The accuracy that tables show first, where one was measured."
    accuracy = line["last_accuracy"] if selected(line) else line["accuracy"]
    return None if pd.isna(accuracy) else accuracy


def averaging_matters(line) -> bool:
    "Whether the weights without EMA are a point or more away from the averaged ones that the table shows."
    return abs(line["accuracy"] - line["accuracy_without_ema"]) >= 0.01 if line["n"] else False


def percent(line, figure: str, sign: str = "±") -> str:
    mean, std = line[figure], line[f"{figure}_std"]
    if pd.isna(mean):
        return "–"
    return f"{mean * 100:.2f}" + ("" if pd.isna(std) else f"{sign}{std * 100:.2f}")


def whole(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:,.0f}"


def spent(line) -> str:
    "Seconds of training: their mean, or their range where one run took over half as long again as another."
    least, most = line["seconds_min"], line["seconds_max"]
    return f"{whole(least)}–{whole(most)}" if most > 1.5 * least else whole(line["seconds"])


def short(device: str) -> str:
    "A device's name without its maker and what stands in parentheses, in ten characters."
    return textwrap.shorten(re.sub(r" \(.*?\)|NVIDIA |GeForce ", "", device), 10, placeholder="…")
