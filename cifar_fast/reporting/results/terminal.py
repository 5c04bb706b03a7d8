"""The lines of a summary as text of at most 100 columns, with notes below where a figure needs a word."""

from __future__ import annotations

import re
import textwrap

import pandas as pd

from cifar_fast.reporting.results.summary import selected
from cifar_fast.utils.statistics import interval_text
from cifar_fast.utils.tables import aligned
from cifar_fast.utils.text import printable, shorten

WIDTH = 100
HEAD = ("recipe", "data", "accuracy %", "n", "TTA/best", "epochs", "train s", "to 85%", "device", "date", "commit")
NOTES = ("accuracy: mean±standard deviation (n−1) over n seeds; TTA: mean of image and mirror",
         "train s, to 85%: seconds of training in all, and until the validation accuracy was 85 %",
         "*  last epoch's accuracy, and beside it that of the best epoch, which was selected on test")
HELD_OUT_NOTE = "†  on images held out of train; all others on test images, and the two do not compare"


def terminal(lines: pd.DataFrame) -> str:
    "Accuracy and TTA accuracy; of reproductions those of the last and the best epoch (marked)."
    table = aligned([HEAD, *(cells(line) for _, line in lines.iterrows())], left={0, 1, 8, 9, 10}, gap=" ")
    remarks = [text for _, line in lines.iterrows() for text in (remark(line), balanced(line))]
    marked = [HELD_OUT_NOTE] if any(held_out(line) for _, line in lines.iterrows()) else []
    notes = [*NOTES, *marked, *(printable(note) for note in remarks if note)]
    return "\n".join([*table, "", *(textwrap.fill(n, WIDTH, subsequent_indent="   ") for n in notes)])


def cells(line) -> tuple[str, ...]:
    name = shorten(line["recipe"], 16)
    if not line["n"]:
        return name, "", "not run", *[""] * (len(HEAD) - 3)
    if selected(line):
        first, second = percent(line, "last_accuracy"), f"{percent(line, 'best_accuracy')}*"
    else:
        first, second = percent(line, "accuracy") + held_out(line), percent(line, "accuracy_tta")
    return (name, shorten(line["data"], 9), first, str(line["n"]), second, whole(line["epochs"]), spent(line),
            whole(line["seconds_to_85"]), device_name(line["device"]), line["date"][2:10], line["commit"][:7])


def remark(line) -> str:
    "What a reader must know about the figures of a line; '' where nothing."
    if not line["n"]:
        return ""
    remarks = []
    if pd.notna(line["current"]) and not line["current"]:
        remarks.append(f"run with {line['settings'] or 'an earlier version of the recipe'}")
    elif line["settings"]:
        remarks.append(line["settings"])
    if line["names"]:
        remarks.append(f"mean of {line['names']}")
    if line["images_most"] > line["images_least"]:
        remarks.append(f"not one experiment: its runs were measured on {whole(line['images_least'])} to "
                       f"{whole(line['images_most'])} images, as if data were added; train the others again")
    if interval := interval_text(shown_accuracy(line), line["images"]):
        remarks.append(interval if line["n"] == 1 else f"for one run alone: {interval}")
    if pd.notna(line["accuracy_low"]) and not selected(line):
        remarks.append(f"95 % interval of the mean {100 * line['accuracy_low']:.2f} to "
                       f"{100 * line['accuracy_high']:.2f} %, n = {line['n']}")
    if averaging_matters(line):
        remarks.append(f"averaged weights (EMA); without averaging {percent(line, 'accuracy_without_ema')} %")
    return f"{line['recipe']}: {'; '.join(remarks)}" if remarks else ""


def balanced(line) -> str:
    "Balanced accuracy, of runs whose classes are unequal."
    return "" if pd.isna(line["balanced_accuracy"]) else (
        f"{line['recipe']}: balanced accuracy {percent(line, 'balanced_accuracy')} %")


def held_out(line) -> str:
    "The mark of an accuracy that was measured on images held out of train."
    return "†" if line["split"] == "held-out" else ""


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
    "Seconds of training: their mean, or their range where the longest run took half as long again as the shortest."
    least, most = line["seconds_min"], line["seconds_max"]
    return f"{whole(least)}–{whole(most)}" if most > 1.5 * least else whole(line["seconds"])


def device_name(device: str) -> str:
    "The device without vendor and parentheses, in ten characters."
    return shorten(re.sub(r" \(.*?\)|NVIDIA |GeForce ", "", device), 10, head=1)
