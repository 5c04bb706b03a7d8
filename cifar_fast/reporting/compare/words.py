"""Two runs image by image, and the values in which two recipes or runs differ, in lines for people."""

from __future__ import annotations

import textwrap

from cifar_fast.reporting.compare.paired import LEVEL, Pair
from cifar_fast.reporting.compare.runs import Run, experiment_of
from cifar_fast.reporting.compare.table import WIDTH
from cifar_fast.reporting.results import OWN
from cifar_fast.reporting.results.rows import text
from cifar_fast.reporting.results.terminal import percent
from cifar_fast.utils.text import printable


def pair_text(pair: Pair, first: Run, second: Run) -> str:
    "Counts, difference with its interval, and in plain words what may be said."
    a, b = pair.names
    width = max(len(a), len(b))
    difference, low, high = (f"{100 * x:+.2f}" for x in (pair.difference, *pair.interval))
    unlike = pair.first_only + pair.second_only
    lines = [
        f"{a} and {b} on the same {pair.n:,} {pair.on} images:",
        f"  {a:<{width}}  {pair.accuracy[0]:>7.2%}   alone right on {pair.first_only:>6,}",
        f"  {b:<{width}}  {pair.accuracy[1]:>7.2%}   alone right on {pair.second_only:>6,}",
        f"  both right on {pair.both:,}, neither on {pair.neither:,}",
        f"  difference {difference} points, {LEVEL:.0%} interval {low} to {high} (Newcombe 1998)",
        f"  {small(pair.p)} that a fair coin splits the {unlike:,} so unevenly (McNemar, exact)",
        *(["  furthest apart on " + ", ".join(f"{c} ({x:.1%}, {y:.1%})" for c, x, y in pair.classes)]
          if pair.classes else []),
        "",
        verdict(pair),
        *cautions(first, second),
    ]
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="    " if line.startswith(" ") else "")
                     if len(line) > WIDTH else line for line in lines)


def verdict(pair: Pair) -> str:
    "One sentence: by how much the better one is better, or that nobody can say."
    low, high = sorted(abs(100 * x) for x in pair.interval)
    if pair.real:
        digits = 1 if low >= 0.1 else 2
        return f"{pair.names[pair.difference < 0]} is better by {low:.{digits}f} to {high:.{digits}f} points."
    return "The difference is within noise."


def cautions(first: Run, second: Run) -> list[str]:
    "What the sentence does not cover, with the means over seeds where the tables have them."
    notes = ["That is about these two models and the draw of the images. It says nothing on other seeds:"]
    lines = [experiment_of(run) for run in (first, second)]
    if all(line is not None for line in lines) and lines[0]["recipe_id"] == lines[1]["recipe_id"]:
        notes = ["Both are runs of one recipe: what differs is the seed (or the machine), not the idea."]
    for run, line in zip((first, second), lines, strict=True):
        if line is None:
            notes.append(f"  {run.name}: no row in {run.folder.parent / OWN}")
        else:
            figure = "last_accuracy" if run.card.selected_on_test else "accuracy"
            seeds = f"{line['n']} seeds" if line["n"] > 1 else "1 seed"
            notes.append(f"  {run.name}: {percent(line, figure, ' ± ')} % over {seeds}")
    return notes + [f"{run.name}: its epoch was selected on these very images, as its authors did"
                    for run in (first, second) if run.card.selected_on_test]


def small(p: float) -> str:
    return "p < 1e-300" if p < 1e-300 else f"p = {p:.2g}"


def differences_text(found: dict[str, dict], first: str, second: str) -> str:
    "`fit.pct_start: 0.25 | 0.3`, a line a value; – where a recipe has no such value."
    if not found:
        return "no difference"
    width = max(map(len, found)) + 1
    shown = []
    for key, values in found.items():
        pair = (value_text(values[name]) if name in values else "–" for name in (first, second))
        shown.append(f"{key + ':':<{width}} {' | '.join(pair)}")
    return "\n".join(map(printable, [f"{'':<{width}} {first} | {second}", *shown]))


def value_text(value) -> str:
    "As the command line reads it; a list of names without brackets."
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return ", ".join(value)
    return text(value)
