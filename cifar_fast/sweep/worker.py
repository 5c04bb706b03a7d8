"""A worker of a sweep: claims a trial, trains it in its folder, records the outcome, until all are finished."""

from __future__ import annotations

import shutil
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cifar_fast.data.errors import DataError
from cifar_fast.data.sources import Source
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import NAME as CARD
from cifar_fast.recipe import Recipe, load_recipe, override
from cifar_fast.runs.failures import UNWRITABLE
from cifar_fast.runs.run import start
from cifar_fast.runs.run_dir import Busy, RunFolder
from cifar_fast.sweep.locks import worker_id
from cifar_fast.sweep.pool import output_to
from cifar_fast.sweep.pruners import make_pruner
from cifar_fast.sweep.space import parse_space
from cifar_fast.sweep.study import WORKERS, Sweep, SweepError, make_sampler
from cifar_fast.training.callbacks.history import DivergedError
from cifar_fast.training.callbacks.progress import Progress
from cifar_fast.training.init import read_init
from cifar_fast.training.prepare import load_images
from cifar_fast.training.state import watched
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import replace_folder
from cifar_fast.utils.signals import StopRequested

IDLE = 1.0  # seconds until a worker without a trial looks again
LOGS, PRUNED = "logs", "pruned"
"In a sweep's folder: what each trial printed, and the histories of those that were stopped early."


class Pruned(CifarFastError):
    "A trial that is stopped early: others were better by the same point."


class Lost(CifarFastError):
    "A trial that another worker has taken over, since this one was silent for too long."


def trial_name(number: int) -> str:
    return f"trial-{number:03}"


def work(name: str, folder: Path, url: str | None, grace: float) -> int:
    "The life of a worker; the exit code of its process."
    sweep = Sweep(name, folder, url, grace)
    sweep.create_or_join(None, None)
    definition = sweep.definition
    space = parse_space(definition.recipe, [*definition.fixed, *(f"{k}={v}" for k, v in definition.space.items())])
    epochs = override(load_recipe(definition.recipe), list(space.fixed)).epochs
    sampler = make_sampler(definition.sampler, definition.seed)
    pruner = make_pruner(definition.pruner, epochs, space.fewest_epochs)
    with worker_id(folder / WORKERS) as worker:
        while not sweep.finished():
            trial = sweep.claim(worker, sampler, pruner)
            if trial is None:
                time.sleep(IDLE)  # those of others may come back
                continue
            with heartbeat(sweep, trial), output_to(folder / LOGS / f"{trial_name(trial.number)}.log"):
                run_trial(sweep, trial, worker, definition.recipe, space)
    return 0


@contextmanager
def heartbeat(sweep: Sweep, trial: Any):
    "Records in the storage that the worker of the trial lives."
    over = threading.Event()

    def beat():
        while not over.wait(sweep.grace / 5):
            try:
                sweep.storage.record_heartbeat(trial._trial_id)
            except Exception:  # a server that restarts: the next beat may come through
                traceback.print_exc()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def images_of(recipe: Recipe) -> Source:
    "Those of all trials, decoded once."
    return load_images(recipe, read_init(recipe) if recipe.init else None)


def run_trial(sweep: Sweep, trial: Any, worker: str, recipe: str, space: Any) -> None:
    "Train a claimed trial, or what is left of it, and record the outcome. A signal gives it back at a checkpoint."
    began, before = time.monotonic(), trial.user_attrs.get("seconds", 0)

    def spent() -> float:
        return round(before + time.monotonic() - began, 1)

    try:
        # They may change while it runs, and a run that is resumed here is not asked again.
        if sweep.images and not {"size", "init"} & space.texts.keys():  # else trials see them in different sizes
            sweep.require_images(images_of(override(load_recipe(recipe), list(space.fixed))).fingerprint)
        changes = space.suggest(trial)
        state, value, facts = outcome(sweep, trial, worker, recipe, changes, spent)
    except (Busy, Lost) as e:  # a worker that was taken for dead still trains it, or another one trains this
        print(e, flush=True)
        sweep.give_back(trial, worker, spent())
        time.sleep(IDLE)
        return
    except StopRequested:
        sweep.give_back(trial, worker, spent())
        raise
    except Exception as e:
        if concerns_all(e):
            sweep.give_back(trial, worker, spent())
            raise SweepError(f"trial {trial.number}: {e}") from e
        traceback.print_exc()
        text = str(e) if isinstance(e, CifarFastError) else f"{type(e).__name__}: {e}"
        state, value, facts = "FAIL", None, {"error": text[:500]}
    sweep.finish(trial, worker, state, value, seconds=spent(), **facts)


def concerns_all(e: Exception) -> bool:
    "Whether every other trial would fail likewise: unreadable or other data, a full disk, a storage that is gone."
    cause = e.__cause__ or e
    return (isinstance(e, DataError | SweepError) or isinstance(cause, OSError) and cause.errno in UNWRITABLE
            or type(e).__name__ in ("StorageInternalError", "OperationalError"))


def outcome(sweep: Sweep, trial: Any, worker: str, recipe: str, changes: Sequence[str],
            spent: Callable[[], float]) -> tuple[str, float | None, dict]:
    """(state, held-out accuracy, facts) of the trial's run, which is trained unless it has been.

    Of unequal classes the balanced accuracy, as after each epoch. `spent`: seconds, with those of earlier workers.
    """
    name = trial_name(trial.number)
    path, stopped = sweep.folder / name, sweep.folder / PRUNED / name
    report = [] if any(c.startswith("report=") for c in changes) else ["report=no"]
    given = [recipe, *changes, *report, f"name={name}", f"exports={sweep.folder}"]
    if not (path / CARD).is_file():
        try:
            if stopped.is_dir():  # its worker died before it could record that
                raise Pruned
            resolved = override(load_recipe(recipe), given[1:])
            resume = True if RunFolder(path).working.exists() else None

            def progress(state, split):
                return TrialProgress(state, split, sweep=sweep, trial=trial, worker=worker, epochs=resolved.epochs,
                                     spent=spent)

            start(resolved, False, resume, True, False, True, given, progress, tuning=True)
        except (Pruned, DivergedError) as e:
            keep_history(path, stopped)
            return "PRUNED", None, {"diverged": str(e)} if isinstance(e, DivergedError) else {}
    card = read_card(path)
    balanced = card.metrics.balanced_accuracy
    value = card.metrics.accuracy if balanced is None else balanced
    return "COMPLETE", value, {"epochs": card.epochs, "resumed": card.resumed or 0}


def keep_history(path: Path, to: Path) -> None:
    "Of a trial that was stopped early: its history and recipe. Its checkpoint is removed."
    folder = RunFolder(path)
    if not folder.working.exists():
        return
    with folder:
        to.parent.mkdir(exist_ok=True)
        for file in folder.staged.glob("*.safetensors"):
            file.unlink()
        replace_folder(folder.staged, to, to.with_name(f".{to.name}.former"))
        shutil.rmtree(folder.working, ignore_errors=True)


class TrialProgress(Progress):
    "Reports the held-out accuracy of every epoch to Optuna, and stops the run where it says so."

    order = 101  # after the checkpoint: what was reported is on disk

    def __init__(self, state, split, *, sweep: Sweep, trial: Any, worker: str, epochs: int,
                 spent: Callable[[], float]):
        super().__init__(state, split, mode="lines")
        self.sweep, self.trial, self.worker, self.epochs, self.spent = sweep, trial, worker, epochs, spent

    def after_epoch(self):
        super().after_epoch()
        if not self.sweep.owns(self.trial, self.worker):
            raise Lost(f"trial {self.trial.number} was given to another worker, as this one was silent for longer than "
                       f"{self.sweep.grace:g} s")
        self.trial.set_user_attr("seconds", self.spent())  # a worker that is killed cannot say
        frozen = self.sweep.storage.get_trial(self.trial._trial_id)
        for row in self.state.rows:  # those before a resume too
            if row["epoch"] not in frozen.intermediate_values:
                self.trial.report(row[watched(row)], row["epoch"])
        if self.state.epoch < self.epochs and self.trial.should_prune():
            raise Pruned(f"pruned after epoch {self.state.epoch}")
