"""Measuring in turns: a figure and its plain reference alternate in one run; their ratio is taken round by round."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from cifar_fast.utils.log import log_progress

Side = Callable[[], float]
"Does its work once; returns what it measured, e.g. images a second."


@dataclass(frozen=True)
class Bar:
    "What a comparison has to reach."

    must: float | None = None
    goal: float | None = None
    at_most: bool = False  # as for seconds; a rate has to be at least so high
    of: str = "ratio"  # or "difference_s"

    def met(self, value: float, bar: float | None) -> bool | None:
        return None if bar is None else value <= bar if self.at_most else value >= bar


def seconds(work: Callable[[], object], clock=time.perf_counter) -> float:
    "Wall seconds of `work`, with all that it queued on a GPU."
    synchronize()
    start = clock()
    work()
    synchronize()
    return clock() - start


def synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def rate(count: int, work: Callable[[], object]) -> Side:
    "A side that measures how many of the `count` things in `work` are done in a second."
    return lambda: count / seconds(work)


def alternate(sides: dict[str, Side], rounds: int, warm: bool = True) -> dict[str, list[float]]:
    "Every side once a round, every other round in reverse, so that what drifts or warms up favours none."
    if warm:
        for side in sides.values():
            side()
    found = {name: [] for name in sides}
    for r in range(rounds):
        for name in sides if r % 2 == 0 else reversed(sides):
            found[name].append(sides[name]())
    return found


def compare(
    measured: list[float],  # one a round
    reference: list[float],  # of the same rounds
    unit: str,
    bar: Bar = Bar(),
    against: str = "",  # the reference in words
) -> dict:
    "The comparison as JSON-able data. A busy moment slows both sides of a round, so the ratio is that of the rounds."
    pairs = list(zip(measured, reference, strict=True))
    ratios = [m / r for m, r in pairs]
    found = {"ratio": median(ratios), "spread": [min(ratios), max(ratios)], "measured": median(measured),
             "reference": median(reference), "unit": unit, "against": against, "rounds": len(ratios)}
    if bar.of == "difference_s":
        differences = [m - r for m, r in pairs]
        found |= {"difference_s": median(differences), "difference_spread": [min(differences), max(differences)]}
    value = found[bar.of]
    return found | {"bar": f"{bar.of}, at {'most' if bar.at_most else 'least'}", "must": bar.must, "goal": bar.goal,
                    "meets": bar.met(value, bar.must), "meets_goal": bar.met(value, bar.goal)}


def note(text: str) -> None:
    "Say on stderr what is measured now."
    log_progress(f"bench: {text}")
