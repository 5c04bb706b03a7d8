"""step: seconds per step in Learner.fit, against the same model, optimizer and loss in a bare loop on the same batches.

First with everything that recipe final does: mixing, weight averaging, metric, Recorder, history. Then without mixing
and averaging, as in the bare loop: the difference is the overhead of fastai and our callbacks.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from fastai.data.core import DataLoaders

from cifar_fast.bench.timing import Bar, alternate, compare, note, seconds
from cifar_fast.bench.workload import BareLoop, Batches, batches, plain, prepared, steps_of
from cifar_fast.recipe import load_recipe
from cifar_fast.runs.dryrun import seconds_a_step
from cifar_fast.training.prepare import Run

RECIPE = "final"
BAR = Bar(must=1.10, goal=1.03, at_most=True)


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
    values = alternate({
        "bare": lambda: seconds(lambda: loop.steps(bare[1:], steps)) / steps,
        "fit": lambda: fitted(run, fed),
        "light": lambda: fitted(light, fed),
    }, rounds)
    torch.compiler.reset()  # do not carry compiled code into the next benchmark
    against = "the bare loop"
    return {"comparisons": {
        f"{recipe.name} as a run fits it": compare(values["fit"], values["bare"], "s/step", BAR, against),
        "without mixing and averaging": compare(values["light"], values["bare"], "s/step", BAR, against),
    }, "notes": [f"{steps} steps per measurement, batches of {recipe.bs}; {run.device} {run.precision}, "
                 f"{run.memory_format}, {'compiled' if run.compiled else 'eager'}"]}


def fitted(run: Run, fed: Batches) -> float:
    "Seconds per step of a fit on these batches, from the end of the first step to the end of the last."
    run.learn.dls = DataLoaders(fed, Batches(), device=run.device)
    with run.learn.no_bar():
        return seconds_a_step(run, len(fed) - 1)[0]
