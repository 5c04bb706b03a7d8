"""scale: time and memory of an epoch at three numbers of images, three resolutions and three model sizes.

Times eager steps of the flagship in the recipe's precision and memory format, without fastai; for the number of images
the DataLoader too. A few batches are timed and extrapolated to an epoch. Peak memory is measured in fp32, in a fresh
process for each size.
"""

from __future__ import annotations

import ast
import math
from functools import partial
from itertools import islice
from statistics import median

import timm
import torch

from cifar_fast.bench.startup import fresh
from cifar_fast.bench.synthetic import FLAGSHIP
from cifar_fast.bench.timing import Side, alternate, compare, note, seconds
from cifar_fast.bench.workload import BareLoop, forever, prepared
from cifar_fast.training.prepare import Run

RECIPE = "final"
IMAGES = (12_500, 25_000, 50_000)
SIDES = (32, 48, 64)  # pixels
WIDTHS = ((8, 24, 52), (16, 48, 104), (32, 96, 208))  # channels: stem, 16×16, 8×8
OWN = 1  # index of the recipe's own widths
STEPS = 2  # batches per measurement


def measure(rounds: int) -> dict:
    run = prepared(RECIPE, IMAGES[-1])
    axes = {"images": images_axis(run, rounds), "resolution": resolution_axis(run, rounds),
            "parameters": parameters_axis(run, rounds)}
    return {"comparisons": {f"{name} {low['size']:,} → {row['size']:,}": row["cost"]
                            for name, (low, *rest) in axes.items() for row in rest},
            "tables": {f"an epoch, by {name}": [shown(row) for row in rows] for name, rows in axes.items()},
            "notes": [limits(name, rows) for name, rows in axes.items()]}


def images_axis(run: Run, rounds: int) -> list[dict]:
    "DataLoader and step together; each size has its own DataLoader."
    loop, sides, data = bare(run, WIDTHS[OWN]), {}, {}
    for n in IMAGES:
        own = prepared(run.recipe, n)
        fed, batches = forever(own.learn.dls.train), len(own.learn.dls.train)
        sides[n] = epoch(batches, partial(trained, loop, fed))
        data[f"{n} data"] = epoch(batches, partial(list_of, fed))
    note("scale: images")
    values = alternate({**sides, **data}, rounds)
    memory = {n: peak(n, SIDES[0], run.recipe.bs, WIDTHS[OWN]) for n in IMAGES}
    result = rows({n: values[n] for n in IMAGES}, memory)
    for row in result:
        row["data_share"] = median(values[f"{row['size']} data"]) / row["seconds"]
    return result


def resolution_axis(run: Run, rounds: int) -> list[dict]:
    "Forward, backward and optimizer step on inputs of each size, without the DataLoader."
    loop, batches = bare(run, WIDTHS[OWN]), len(run.learn.dls.train)
    note("scale: resolution")
    values = alternate({s: epoch(batches, partial(trained, loop, same(run, s))) for s in SIDES}, rounds)
    return rows(values, {s: peak(run.recipe.bs, s, run.recipe.bs, WIDTHS[OWN]) for s in SIDES})


def parameters_axis(run: Run, rounds: int) -> list[dict]:
    "The same for narrower and wider models at 32×32."
    loops, batches = [bare(run, w) for w in WIDTHS], len(run.learn.dls.train)
    count = [sum(p.numel() for p in loop.model.parameters()) for loop in loops]
    note("scale: parameters")
    values = alternate({n: epoch(batches, partial(trained, loop, same(run, SIDES[0])))
                        for n, loop in zip(count, loops, strict=True)}, rounds)
    return rows(values, {n: peak(run.recipe.bs, SIDES[0], run.recipe.bs, w)
                         for n, w in zip(count, WIDTHS, strict=True)})


# ---------------------------------------------------------------- pieces


def bare(run: Run, widths: tuple[int, ...]) -> BareLoop:
    model = timm.create_model(FLAGSHIP, num_classes=10, widths=widths).to(run.device)
    return BareLoop(model, run.recipe, run.precision, run.memory_format)


def same(run: Run, side: int):
    "The same random batch of this resolution, again and again."
    x = torch.randn(run.recipe.bs, 3, side, side, device=run.device)
    y = torch.arange(run.recipe.bs, device=run.device) % 10
    return forever([(x, y)])


def trained(loop: BareLoop, fed) -> None:
    for x, y in islice(fed, STEPS):
        loop.step(x.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor))


def list_of(fed) -> list:
    return list(islice(fed, STEPS))


def epoch(batches: int, work) -> Side:
    "Seconds of an epoch of `batches`, extrapolated from `work`, which does `STEPS` of them."
    return lambda: seconds(work) / STEPS * batches


def peak(images: int, side: int, batch: int, widths: tuple[int, ...]) -> float | None:
    args = (images, side, batch, *widths)
    return ast.literal_eval(fresh("-m", "cifar_fast.bench.memory", *map(str, args)).split()[-1])


def rows(values: dict[int, list[float]], memory: dict[int, float | None]) -> list[dict]:
    "One row per size: seconds of an epoch, their ratio to the smallest size, peak megabytes."
    least = next(iter(values.values()))
    return [{"size": n, "seconds": median(v), "cost": compare(v, least, "s/epoch", against="the smallest size"),
             "peak_mb": memory[n]} for n, v in values.items()]


def shown(row: dict) -> dict:
    data = {"data": f"{row['data_share']:.0%}"} if "data_share" in row else {}
    return {"size": row["size"], "s/epoch": round(row["seconds"], 1), "ratio": round(row["cost"]["ratio"], 2), **data,
            "peak MB": None if row["peak_mb"] is None else round(row["peak_mb"])}


def power(rows: list[dict], key: str) -> float | None:
    "The exponent p of cost ∝ size^p, from the smallest and the largest size."
    first, last = rows[0], rows[-1]
    if not first[key] or not last[key] or last[key] < 0 or first[key] < 0:
        return None
    return math.log(last[key] / first[key]) / math.log(last["size"] / first["size"])


def limits(name: str, rows: list[dict]) -> str:
    "How fast time and memory grow, as text."
    time, memory = power(rows, "seconds"), power(rows, "peak_mb")
    text = f"time grows as size^{time:.2f}, " + (
        "memory cannot be measured here" if memory is None else f"peak memory as size^{memory:.2f}")
    if name == "images":
        share = rows[-1]["data_share"]
        text += (f"; {'the step' if share < 0.5 else 'the data path'} takes {max(share, 1 - share):.0%} of the time; "
                  f"decoded images take 3,072 bytes each: in memory here, in a memory-mapped file in a run")
    return f"{name}: {text}"
