"""When a trial ends early: Optuna's pruners, which compare trials by their accuracy at the same step.

A step is an epoch. Where `epochs` is searched it is a whole percent of the trial's own epochs: after as many epochs a
short run has annealed and a long one has not, so that the long ones would be pruned rather than the bad ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np


def bending(keys: Iterable[str]) -> list[str]:
    "Those of the searched settings that bend the schedule: before its end, accuracy says little about them."
    return [key for key in keys if key.partition(".")[0] in ("fit", "sched") or key.endswith((".until", ".fade"))]


def make_pruner(
    name: str,  # as --pruner takes it
    epochs: int,  # of every trial that has none among its parameters
    fewest: int | None = None,  # of the searched epochs; None where they are not searched
):
    from optuna import pruners

    # The first step at which halving compares, the last step, and a fifth of the run: at a high learning rate accuracy
    # says little. In percent halving waits until all trials have finished an epoch.
    first, last, fifth = max(1, epochs // 9), epochs, max(1, epochs // 5)
    if fewest:
        first, last, fifth = max(100 // 9, -(-100 // fewest)), 100, 20
    if name == "hyperband":
        pruner = pruners.HyperbandPruner(min_resource=first, max_resource=last)
    elif name == "halving":
        pruner = pruners.SuccessiveHalvingPruner(min_resource=first)
    elif name == "median":
        pruner = pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=fifth)
    else:
        return pruners.NopPruner()
    return comparing_by_percent(pruner, epochs) if fewest else pruner


def comparing_by_percent(pruner: Any, epochs: int):
    "The pruner, asked at every whole percent of a trial's epochs that its last epoch has reached."
    prune = pruner.prune

    def epochs_of(trial) -> int:
        return int(trial.params.get("epochs", epochs))

    def shown(trial):
        trial = copy.copy(trial)
        trial.intermediate_values = by_percent(trial.intermediate_values, epochs_of(trial))
        return trial

    def prune_by_percent(study, trial) -> bool:
        others = copy.copy(study)
        others.get_trials = lambda *args, **kwargs: [shown(t) for t in study.get_trials(*args, **kwargs)]
        curve, before = shown(trial).intermediate_values, 100 * ((trial.last_step or 1) - 1) // epochs_of(trial)
        for percent in [p for p in curve if p > before]:
            # Anew each time: halving keeps what it has compared with the trial.
            now = copy.copy(study._storage.get_trial(trial._trial_id))
            now.intermediate_values = {p: value for p, value in curve.items() if p <= percent}
            if prune(others, now):
                return True
        return False

    pruner.prune = prune_by_percent  # of this one: samplers ask for its class
    return pruner


def by_percent(curve: dict[int, float], epochs: int) -> dict[int, float]:
    "{epoch: accuracy} → {percent of `epochs`: accuracy}, at whole percents, between two epochs in a straight line."
    if not curve:
        return {}
    done = sorted(curve)
    percents = range(-(-100 * done[0] // epochs), 100 * done[-1] // epochs + 1)
    values = np.interp([p * epochs / 100 for p in percents], done, [curve[epoch] for epoch in done])
    return dict(zip(percents, map(float, values), strict=True))
