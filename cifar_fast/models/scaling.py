"""One architecture at several budgets: its widths scaled by a rule."""

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

    def fitting(candidates) -> list[tuple[int, tuple[int, ...]]]:
        counted = [(params(w), w) for w in sorted(set(candidates)) if min(w) >= STEP]
        return [(n, w) for n, w in counted if n <= max_params]

    if params(widths) <= max_params:
        return widths
    factors = [n / max(widths) for n in range(STEP, max(widths), STEP)]
    scaled = fitting(tuple(max(STEP, STEP * round(f * w / STEP)) for w in widths) for f in factors)
    if not scaled:
        raise ValueError(f"max_params={max_params}: even with {STEP} channels everywhere it has more parameters")
    _, base = max(scaled)
    steps = itertools.product((-STEP, 0, STEP), repeat=len(widths))
    return max(fitting(tuple(w + s for w, s in zip(base, step, strict=True)) for step in steps))[1]
