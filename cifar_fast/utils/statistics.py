"""How far an accuracy may be from the true one: by the number of images, and by the number of runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

ENOUGH = 10_000
"Images from which on the interval is left out: it is narrower than what two seeds differ by."


@cache
def wilson(accuracy: float, n: int) -> tuple[float, float]:
    "Wilson's 95 % interval, as fractions, of an accuracy in [0, 1] on `n` images."
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * n), n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def interval_text(accuracy: float | None, n: int | None) -> str:
    "`n = 359, 95 % interval 97.6 to 99.6 %`; empty for `ENOUGH` images or more, and without a measurement."
    if accuracy is None or not n or not n < ENOUGH:  # NaN where several runs differ in it
        return ""
    n = round(n)
    low, high = wilson(accuracy, n)
    return f"n = {n:,}, 95 % interval {100 * low:.1f} to {100 * high:.1f} %"


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    "Student's 95 % interval of the mean accuracy, a fraction, of a few runs; None for fewer than two."
    if len(values) < 2:
        return None
    import numpy as np
    from scipy.stats import t

    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = float(t.ppf(0.975, len(values) - 1)) * error
    return max(mean - reach, 0.0), min(mean + reach, 1.0)
