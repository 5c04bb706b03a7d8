"""A run in all but the first of the processes that train it together: they take part and write nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace

from cifar_fast.recipe import Recipe
from cifar_fast.runs.run_dir import RunError, command, differences, identity, machine
from cifar_fast.training.callbacks.checkpoint import Checkpoint
from cifar_fast.training.fit import fit
from cifar_fast.training.prepare import Run, prepare, settle_memory_format
from cifar_fast.utils.ranks import LAUNCHED, from_first, here, is_lost, leave
from cifar_fast.utils.signals import defer_signals


def lead(run: Run, about: dict, saved: dict | None, find_lr: bool) -> None:
    "In the first process: tell the others what all of them are about to do."
    from_first((run.recipe.name, about, saved, find_lr))


def dismiss() -> None:
    "Tell them that there is nothing to train."
    from_first(None)


def follow(recipe: Recipe, typed: Sequence[str]) -> None:
    "Train along with the first process. Raises RunError where this one differs from it."
    run = prepare(recipe, typed=typed)
    if (told := from_first(None)) is None:
        return
    name, about, saved, find_lr = told
    run = replace(run, recipe=replace(run.recipe, name=name))
    require_alike(about, identity(run.recipe, run.source.fingerprint, machine(run), run.commit))
    settle_memory_format(run, saved and saved["state"])
    r = run.recipe
    checkpoint = Checkpoint(None, about, r.checkpoint_epochs, r.checkpoint_minutes, saved)
    try:
        lr = from_first(None) if find_lr else about["lr"]
        with defer_signals(checkpoint):
            fit(run, lr, checkpoint=checkpoint)
            leave()
            checkpoint.done = True
    except BaseException as e:
        report_lost(e, about)
        raise


def require_alike(about: dict, own: dict) -> None:
    "Raises RunError where the first process has other images, code, libraries or another machine than this one."
    if differing := differences(about, own):
        lines = "\n  ".join(line.replace(" then, ", " in process 0, ").replace(" now", " here") for line in differing)
        raise RunError(f"process {here().rank} would not compute the same as process 0:\n  {lines}\nmake the machines "
                       f"alike")


def report_lost(e: BaseException, about: dict) -> None:
    "Where another process is gone, say how the run resumes, unless the launcher does: the first process may be gone."
    if is_lost(e) and LAUNCHED not in os.environ:
        print(f"\nprocess {here().rank}: another process of this run has ended\nresume with: {command(about)}",
              file=sys.stderr, flush=True)
