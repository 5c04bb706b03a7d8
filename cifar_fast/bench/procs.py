"""procs: recipe final in the two processes that procs=auto takes on a CPU, against one process with all threads.

Each measurement is a fresh start of the processes (not timed), then steps of the whole fit on random images. Images per
second say what a run gains; images per CPU second say the same on a machine with other work. Bytes are what a process
writes to the others in a step.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median

from fastai.callback.core import Callback, CancelFitException

from cifar_fast.bench.timing import Bar, alternate, compare, note
from cifar_fast.bench.workload import prepared
from cifar_fast.recipe import load_recipe
from cifar_fast.training.fit import fit
from cifar_fast.training.parallel import ON_A_CPU
from cifar_fast.utils.cores import CORES
from cifar_fast.utils.launch import launch
from cifar_fast.utils.ranks import gathered, here, joined

RECIPE = "final"
STEPS = 20
IMAGES = 10_000
BAR = Bar(goal=1.1)  # below that, several processes are not worth their trouble
FIGURES = ("images/s", "images/CPU s", "bytes/step")


def measure(rounds: int) -> dict:
    several, threads = ON_A_CPU, max(1, CORES // ON_A_CPU)
    note(f"procs: {RECIPE} in {several} processes of {threads}, and in one of {CORES} threads; {rounds} rounds")
    found = {n: [] for n in (1, several)}

    def side(procs, threads):
        def run():
            found[procs].append(figures(procs, threads))
            return found[procs][-1]["images/s"]
        return run

    alternate({"one": side(1, CORES), "several": side(several, threads)}, rounds, warm=False)
    values = {n: {name: [f[name] for f in found[n]] for name in FIGURES} for n in found}
    against = f"one process of {CORES} threads"
    return {"comparisons": {
        f"{RECIPE} in {several} processes": compare(values[several]["images/s"], values[1]["images/s"], "images/s", BAR,
                                                    against),
        "the same by CPU time": compare(values[several]["images/CPU s"], values[1]["images/CPU s"], "images/CPU s",
                                        against=against),
    }, "tables": {"medians": [{"processes": n, **{name: round(median(v)) for name, v in values[n].items()}}
                              for n in values]},
        "notes": [f"{STEPS} steps per measurement"]}


def figures(procs: int, threads: int, recipe: str = RECIPE) -> dict[str, float]:
    "FIGURES of fresh processes that train together."
    before = os.environ.get("OMP_NUM_THREADS")
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "figures.json"
        os.environ["OMP_NUM_THREADS"] = str(threads)
        try:
            if code := launch(["-m", __name__, str(path), recipe], procs):
                raise RuntimeError(f"the processes ended with {code}")
        finally:
            os.environ.pop("OMP_NUM_THREADS")
            os.environ.update({"OMP_NUM_THREADS": before} if before else {})
        return json.loads(path.read_text("utf-8"))


class Meter(Callback):
    "Wall and CPU seconds, and bytes written, after each of so many steps; then ends the fit."

    order = 95

    def __init__(self, steps: int):
        self.steps, self.marks = steps, []

    def after_batch(self):
        self.marks.append((time.perf_counter(), time.process_time(), bytes_written()))
        if len(self.marks) > self.steps:
            raise CancelFitException

    @property
    def of_a_step(self) -> list[float]:
        return [(last - first) / self.steps for first, last in zip(self.marks[0], self.marks[-1], strict=True)]


def bytes_written() -> int:
    "By this process so far, to files and connections; 0 where the system does not count them."
    with suppress(OSError):
        return int(Path("/proc/self/io").read_text().partition("wchar: ")[2].split()[0])
    return 0


def main(path: str, recipe: str) -> None:
    "In each of the processes; the first one writes the figures."
    with joined() as ranks:
        # auto would be a GPU where there is one, and refused for more processes than GPUs.
        run, meter = prepared(replace(load_recipe(recipe), device="cpu"), IMAGES), Meter(STEPS)
        run.learn.add_cb(meter)
        fit(run)
        steps = gathered(meter.of_a_step)
        if ranks.first:
            wall, cpu, sent = steps[0][0], sum(s[1] for s in steps), steps[0][2]
            Path(path).write_text(json.dumps({"images/s": run.recipe.bs / wall, "images/CPU s": run.recipe.bs / cpu,
                                              "bytes/step": sent, "processes": here().count}), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
