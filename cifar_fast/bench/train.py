"""train: images per second of recipe final as configured by `auto` on this machine, against the other configurations.

First the whole fit, with mixing and averaging, in both memory formats. Then steps without fastai of the same model on
the same batches in eight configurations: fp32 or bf16, contiguous or channels_last, eager or compiled. One that cannot
work here, or is far too slow, is listed with the reason. The DataLoader is measured in the same rounds, which shows
whether it or the step is the bottleneck.
"""

from __future__ import annotations

import copy
from functools import partial
from itertools import islice, product
from statistics import median
from typing import NamedTuple

import torch

from cifar_fast.bench.step import fitted
from cifar_fast.bench.timing import Bar, Side, alternate, compare, note, rate, seconds
from cifar_fast.bench.workload import BareLoop, batches, forever, plain, prepared, steps_of
from cifar_fast.training.callbacks.compiling import why_not
from cifar_fast.training.prepare import Run
from cifar_fast.training.state import MEMORY_FORMATS

RECIPE = "final"
BAR = Bar(must=0.95, goal=1.0)
HOPELESS = 5  # times the time of fp32 on a small batch: not measured any further
SMALL = 16  # images in this small batch
DATA = "data path"


class Way(NamedTuple):
    "How a step is run: one configuration."

    precision: str
    memory_format: str
    compiled: bool

    def __str__(self):
        return f"{self.precision} {self.memory_format} {'compiled' if self.compiled else 'eager'}"


def measure(rounds: int) -> dict:
    run = prepared(RECIPE)
    own = Way(run.precision, run.memory_format, run.compiled)
    eight = [Way(*w) for w in product(("fp32", "bf16"), MEMORY_FORMATS, (False, True))]
    fed = plain(batches(run, 4))
    sides, left_out = ready(run, own, list(dict.fromkeys([*eight, own])), fed)  # an old GPU chooses fp16
    note(f"train: {len(sides)} ways and the data path, {rounds} rounds")
    values = alternate({**sides, DATA: data_path(run), **fits(run)}, rounds)
    torch.compiler.reset()  # frees the code compiled for these eight
    return {"comparisons": compared(own, values), "tables": {"images/s": table(values, left_out, own)},
            "notes": [bottleneck(values[own], values[DATA], run.recipe.workers)]}


def ready(run: Run, own: Way, ways: list[Way], fed) -> tuple[dict[Way, Side], dict[Way, str]]:
    "The ways that work, warmed up and compiled; and why the others are left out. The recipe's own way must work."
    sides, left_out = {}, unfit(run, [w for w in ways if w != own], fed)
    steps = steps_of(run.device)
    for way in ways:
        if way in left_out:
            continue
        note(f"train: preparing {way}")
        loop = bare(run, way)
        try:
            loop.steps(fed, 2)
        except Exception as e:  # a compiler or a missing kernel may raise anything
            if way == own:
                raise
            left_out[way] = f"{type(e).__name__}: {' '.join(str(e).split())[:120]}"
            continue
        sides[way] = rate(steps * run.recipe.bs, partial(loop.steps, fed, steps))
    return sides, left_out


def unfit(run: Run, ways: list[Way], fed) -> dict[Way, str]:
    "The ways that are not tried, each with the reason."
    compiler, reasons = why_not(run.device), {}
    small = [(x[:SMALL], y[:SMALL]) for x, y in fed]
    base = min(probe(run, Way("fp32", "contiguous", False), small) for _ in range(2))
    for way in ways:
        if way.compiled and compiler:
            reasons[way] = f"torch.compile does not work here ({compiler})"
        elif way.precision != "fp32":
            slower = probe(run, way._replace(compiled=False), small) / base
            if slower > HOPELESS:
                reasons[way] = f"eager it takes {slower:.0f} times as long as fp32 on {SMALL} images"
    return reasons


def probe(run: Run, way: Way, small) -> float:
    "Seconds of one eager step on a small batch, after a warm-up step."
    loop = bare(run, way)
    loop.steps(small, 1)
    return seconds(partial(loop.steps, small, 1))


def bare(run: Run, way: Way) -> BareLoop:
    return BareLoop(copy.deepcopy(run.learn.model).to(run.device), run.recipe, *way)


def data_path(run: Run) -> Side:
    "Images per second of the training DataLoader: augmented, on the device, normalised."
    fed, count = forever(run.learn.dls.train), 10 if run.device.type == "cpu" else 40
    return rate(count * run.recipe.bs, lambda: list(islice(fed, count)))


def fits(run: Run) -> dict[str, Side]:
    "Memory format → images per second of a whole fit in it."
    run, steps = prepared(run.recipe), steps_of(run.device)
    fed = batches(run, steps + 1)  # one more, for the warm-up step of each fit

    def side(memory_format):
        run.memory_format = memory_format
        return run.recipe.bs / fitted(run, fed)
    return {name: partial(side, name) for name in MEMORY_FORMATS}


def compared(own: Way, values: dict) -> dict:
    best = max(ways_of(values), key=lambda w: median(values[w]))
    other = next(name for name in MEMORY_FORMATS if name != own.memory_format)
    return {f"fit of {RECIPE} ({own})": compare(values[own.memory_format], values[other], "images/s", BAR,
                                               f"the fit in {other}"),
            f"{RECIPE} as it runs here ({own})": compare(values[own], values[best], "images/s", BAR, f"{best}"),
            "data path against the step": compare(values[DATA], values[own], "images/s", against=f"{own}")}


def ways_of(values: dict) -> dict[Way, list[float]]:
    return {way: v for way, v in values.items() if isinstance(way, Way)}


def table(values: dict, left_out: dict[Way, str], own: Way) -> list[dict]:
    rows = [{"way": f"{w}{' (its own choice)' if w == own else ''}", "median": round(median(v)),
             "min": round(min(v)), "max": round(max(v)), "note": ""} for w, v in ways_of(values).items()]
    return rows + [{"way": f"{w}", "median": None, "min": None, "max": None, "note": why}
                   for w, why in left_out.items()]


def bottleneck(step: list[float], data: list[float], workers: int) -> str:
    "The bottleneck as text, from images/s of both; without workers they alternate, with workers they overlap."
    s, d = median(step), median(data)
    which, share = ("data", s / (s + d)) if d < s else ("the step", d / (s + d))
    return (f"{which} is the bottleneck: {d:,.0f} images/s of data, {s:,.0f} of steps; with {workers} workers "
            + (f"they alternate, and {which} takes {share:.0%} of the time" if not workers else "they overlap"))
