"""Paired timing: what is measured and its reference alternate in one run; their ratio is computed per round."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from cifar_fast.utils.log import log_progress

Side = Callable[[], float]
"One side of a comparison: works once and returns its measurement, e.g. images per second."


@dataclass(frozen=True)
class Bar:
    "The values that a comparison must reach, and should reach."

    must: float | None = None
    goal: float | None = None
    at_most: bool = False  # an upper limit, as for seconds; else a lower one, as for rates
    of: str = "ratio"  # or "difference_s"

    def met(self, value: float, bar: float | None) -> bool | None:
        return None if bar is None else value <= bar if self.at_most else value >= bar


def seconds(work: Callable[[], object], clock=time.perf_counter) -> float:
    "Wall seconds of `work`, including everything that it queued on a GPU."
    synchronize()
    start = clock()
    work()
    synchronize()
    return clock() - start


def synchronize() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def rate(count: int, work: Callable[[], object]) -> Side:
    "A side that measures items per second, where `work` processes `count` of them."
    return lambda: count / seconds(work)


def alternate(sides: dict[str, Side], rounds: int, warm: bool = True) -> dict[str, list[float]]:
    "Measurements by side: each once per round, in reverse order every second round, so that drift favours no side."
    if warm:
        for side in sides.values():
            side()
    values = {name: [] for name in sides}
    for r in range(rounds):
        for name in sides if r % 2 == 0 else reversed(sides):
            values[name].append(sides[name]())
    return values


def compare(
    measured: list[float],  # one per round
    reference: list[float],  # of the same rounds
    unit: str,
    bar: Bar = Bar(),
    against: str = "",  # describes the reference
) -> dict:
    "The comparison as JSON-able data. Ratios are per round: a busy moment slows both sides of the same round."
    pairs = list(zip(measured, reference, strict=True))
    ratios = [m / r for m, r in pairs]
    result = {"ratio": median(ratios), "spread": [min(ratios), max(ratios)], "measured": median(measured),
              "reference": median(reference), "unit": unit, "against": against, "rounds": len(ratios)}
    if bar.of == "difference_s":
        differences = [m - r for m, r in pairs]
        result |= {"difference_s": median(differences), "difference_spread": [min(differences), max(differences)]}
    value = result[bar.of]
    return result | {"bar": f"{bar.of}, at {'most' if bar.at_most else 'least'}", "must": bar.must, "goal": bar.goal,
                     "meets": bar.met(value, bar.must), "meets_goal": bar.met(value, bar.goal)}


def note(text: str) -> None:
    "Print on stderr what is being measured."
    log_progress(f"bench: {text}")
