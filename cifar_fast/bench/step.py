"""step: seconds per step in Learner.fit, against the same model, optimizer and loss in a bare loop on the same batches.

First with everything that recipe final does: mixing, weight averaging, metric, Recorder, history. Then without mixing
and averaging, as in the bare loop: the difference is the overhead of fastai and our callbacks. Last, how much of the
device's own rate of matrix products the training reaches.
"""

from __future__ import annotations

import copy
import statistics
from dataclasses import replace

import torch
from fastai.data.core import DataLoaders

from cifar_fast.audit.graph import profile
from cifar_fast.bench.timing import Bar, alternate, compare, note, seconds
from cifar_fast.bench.workload import BareLoop, Batches, batches, plain, prepared, steps_of
from cifar_fast.recipe import load_recipe
from cifar_fast.runs.dryrun import step_seconds
from cifar_fast.training.callbacks.precision import DTYPES
from cifar_fast.training.prepare import Run

RECIPE = "final"
BAR = Bar(must=1.10, goal=1.03, at_most=True)
SHARE = Bar(goal=0.25)
SIDE = 2048  # of the square matrices; larger ones are no faster


def measure(rounds: int) -> dict:
    recipe = load_recipe(RECIPE)
    run, light = prepared(recipe), prepared(replace(recipe, mix=None, ema=None))
    light.memory_format = run.memory_format
    note(f"step: {recipe.name} on {run.device} in {run.precision}, {run.memory_format}, "
         f"{'compiled' if run.compiled else 'eager'}")
    steps = steps_of(run.device)
    fed = batches(run, steps + 1)  # one more, for the warm-up step of each fit
    loop = BareLoop(copy.deepcopy(run.learn.model).to(run.device), recipe, run.precision, run.memory_format,
                    run.compiled)
    bare = plain(fed)
    giga_operations = operations_a_step(run.learn.model, fed[0][0].shape) / 1e9
    a = torch.randn(SIDE, SIDE, device=run.device, dtype=DTYPES.get(run.precision, torch.float32))
    values = alternate({
        "bare": lambda: seconds(lambda: loop.steps(bare[1:], steps)) / steps,
        "fit": lambda: fitted(run, fed),
        "light": lambda: fitted(light, fed),
        "product": lambda: seconds(lambda: [a @ a for _ in range(steps)]) / steps,
    }, rounds)
    torch.compiler.reset()  # do not carry compiled code into the next benchmark
    against = "the bare loop"
    reached = [giga_operations / s for s in values["fit"]]
    possible = [2 * SIDE**3 / 1e9 / s for s in values["product"]]
    return {"comparisons": {
        f"{recipe.name} as a run fits it": compare(values["fit"], values["bare"], "s/step", BAR, against),
        "without mixing and averaging": compare(values["light"], values["bare"], "s/step", BAR, against),
        "its multiply-adds": compare(reached, possible, "GFLOP/s", SHARE,
                                     f"{run.precision} products of {SIDE}×{SIDE} matrices"),
    }, "notes": [f"{steps} steps per measurement, batches of {recipe.bs}; {run.device} {run.precision}, "
                 f"{run.memory_format}, {'compiled' if run.compiled else 'eager'}"]}


def operations_a_step(model: torch.nn.Module, shape: torch.Size) -> int:
    "Floating-point operations on a batch: two a multiply-add, three times, since backward has two products for one."
    return 6 * profile(model, tuple(shape[1:])).macs * shape[0]


def fitted(run: Run, fed: Batches) -> float:
    "Seconds per step of a fit on these batches, from the end of the first step to the end of the last."
    run.learn.dls = DataLoaders(fed, Batches(), device=run.device)
    with run.learn.no_bar():
        return statistics.mean(step_seconds(run, len(fed) - 1))
