"""One architecture at several budgets: its widths scaled by a rule."""

import bisect
import itertools
from collections.abc import Callable

import torch
from torch import nn

STEP = 2  # channels: widths are even, so that flip-equivariant layers have two halves


def widths_within(
    max_params: int,
    make: Callable[[tuple[int, ...]], nn.Module],  # widths → the model
    widths: tuple[int, ...],  # at which it is built where they fit
) -> tuple[int, ...]:
    """All widths times the largest factor that fits; then each may be a step wider or narrower, to use the budget.

    Of those, the ones with the most parameters. ValueError where even the narrowest model has more than `max_params`.
    """
    def params(candidate: tuple[int, ...]) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in make(candidate).parameters())

    def scaled(last: int) -> tuple[int, ...]:
        return tuple(max(STEP, STEP * round(last * w / widths[-1] / STEP)) for w in widths)

    if params(widths) <= max_params:
        return widths
    lasts = range(STEP, widths[-1], STEP)
    n = bisect.bisect_right(lasts, max_params, key=lambda last: params(scaled(last)))
    if not n:
        raise ValueError(f"max_params={max_params}: even with {STEP} channels everywhere it has more parameters")
    steps = itertools.product((-STEP, 0, STEP), repeat=len(widths))
    near = [tuple(w + s for w, s in zip(scaled(lasts[n - 1]), step, strict=True)) for step in steps]
    counted = [(params(w), w) for w in near if min(w) >= STEP]
    return max((count, w) for count, w in counted if count <= max_params)[1]
