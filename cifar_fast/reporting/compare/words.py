"""Two runs image by image, and the values in which two recipes or runs differ, as text."""

from __future__ import annotations

import textwrap

from cifar_fast.reporting.compare.paired import LEVEL, Pair
from cifar_fast.reporting.compare.runs import Run, experiment_of
from cifar_fast.reporting.compare.table import WIDTH
from cifar_fast.reporting.results import OWN
from cifar_fast.reporting.results.rows import text
from cifar_fast.reporting.results.terminal import percent
from cifar_fast.utils.tables import aligned
from cifar_fast.utils.text import printable


def pair_text(pair: Pair, first: Run, second: Run) -> str:
    "Counts, difference with its interval, and what follows from them in a sentence."
    a, b = pair.names
    difference, low, high = (f"{100 * x:+.2f}" for x in (pair.difference, *pair.interval))
    counts = aligned([[a, f"{pair.accuracy[0]:.2%}", "  only this one right on", f"{pair.first_only:,}"],
                      [b, f"{pair.accuracy[1]:.2%}", "  only this one right on", f"{pair.second_only:,}"]])
    lines = [
        f"{a} and {b} on the same {pair.n:,} {pair.on} images:",
        *(f"  {line}" for line in counts),
        f"  both right on {pair.both:,}, neither on {pair.neither:,}",
        f"  difference {difference} points, {LEVEL:.0%} interval {low} to {high} (Newcombe 1998)",
        f"  {p_value(pair.p)} (McNemar's exact test on the {pair.first_only + pair.second_only:,} that split them)",
        *(["  greatest differences: " + ", ".join(f"{c} ({x:.1%}, {y:.1%})" for c, x, y in pair.classes)]
          if pair.classes else []),
        "",
        verdict(pair),
        *cautions(first, second),
    ]
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="    " if line.startswith(" ") else "")
                     if len(line) > WIDTH else line for line in map(printable, lines))


def verdict(pair: Pair) -> str:
    "One sentence: by how much the better one is better, or that the difference may be chance."
    low, high = sorted(abs(100 * x) for x in pair.interval)
    if pair.real:
        digits = 1 if low >= 0.1 else 2
        return f"{pair.names[pair.difference < 0]} is better by {low:.{digits}f} to {high:.{digits}f} points."
    return "The difference is within noise."


def cautions(first: Run, second: Run) -> list[str]:
    "What the verdict does not cover, with the means over seeds where the tables have them."
    lines = ["This compares these two models on these images. It says nothing about other seeds:"]
    experiments = [experiment_of(run) for run in (first, second)]
    if all(e is not None for e in experiments) and experiments[0]["recipe_id"] == experiments[1]["recipe_id"]:
        lines = ["Both are runs of one recipe: they differ in the seed (or the machine) only."]
    lines += [f"{run.name}: started from {run.card.start.what}" for run in (first, second) if run.card.start]
    lines += [f"{run.name}: learned from {run.card.taught_by}" for run in (first, second) if run.card.taught_by]
    for run, experiment in zip((first, second), experiments, strict=True):
        if run.exported:  # a file of a run, of which no table has a row
            continue
        if experiment is None:
            lines.append(f"  {run.name}: no row in {run.folder.parent / OWN}")
        else:
            figure = "last_accuracy" if run.card.selected_on_test else "accuracy"
            seeds = f"{experiment['n']} seeds" if experiment["n"] > 1 else "1 seed"
            lines.append(f"  {run.name}: {percent(experiment, figure, ' ± ')} % over {seeds}")
    lines += [f"{run.name}: its epoch was selected on these very images, as its authors did"
              for run in (first, second) if run.card.selected_on_test]
    return lines


def p_value(p: float) -> str:
    return "p < 1e-300" if p < 1e-300 else f"p = {p:.2g}"


def differences_text(differences: dict[str, dict], first: str, second: str) -> str:
    "`fit.pct_start: 0.25 | 0.3`, a line a value; – where a recipe has no such value."
    if not differences:
        return "no difference"
    rows = [["", f"{first} | {second}"],
            *([f"{key}:", " | ".join(value(values[n]) if n in values else "–" for n in (first, second))]
              for key, values in differences.items())]
    column = max(len(key) for key, _ in rows) + 1
    return "\n".join(wrapped(line, column) for line in aligned(rows, left=2, gap=" "))


def wrapped(line: str, column: int) -> str:
    "In at most WIDTH columns; what follows stands below the values, which begin at `column`."
    return textwrap.fill(line, WIDTH, subsequent_indent=" " * column, break_on_hyphens=False, break_long_words=False)


def value(v) -> str:
    "As the command line reads it; a list of names without brackets."
    if isinstance(v, list) and v and all(isinstance(name, str) for name in v):
        return ", ".join(v)
    return text(v)
