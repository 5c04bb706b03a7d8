"""A sweep, from the command line to its report: created or joined, worked off, its winner trained and tested."""

from __future__ import annotations

import shlex
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cifar_fast.data.sources import may_have_valid
from cifar_fast.export.card_file import read_card
from cifar_fast.export.summary import summary
from cifar_fast.recipe import Recipe, check, describe, load_recipe, override, require_validation
from cifar_fast.reporting.results import recipe_id
from cifar_fast.runs.names import export_path, same_as_finished, set_by_data, stopped_folders
from cifar_fast.runs.run import train
from cifar_fast.sweep.page import rebuild
from cifar_fast.sweep.pool import run_pool, threads_of
from cifar_fast.sweep.pruners import bending
from cifar_fast.sweep.snapshot import Snapshot, Trial, importances, take
from cifar_fast.sweep.space import Space, SpaceError, is_searched, parse_space
from cifar_fast.sweep.storage import GRACE, SQLITE, require_optuna
from cifar_fast.sweep.study import Definition, Sweep, SweepError
from cifar_fast.sweep.table import REPORT, command, places, rows
from cifar_fast.sweep.worker import images_of, work
from cifar_fast.training.checksums import with_checksums
from cifar_fast.utils.files import expand_path, write_new
from cifar_fast.utils.log import log_progress
from cifar_fast.utils.signals import StopRequested
from cifar_fast.utils.tables import aligned

TRIALS = 20
SWEEPS = "sweeps"  # folder of all sweeps, in that of the runs
ID = ".id"  # file in a sweep's folder: whose trials are in it
REDRAW = 30  # seconds between two reports while it runs
SHOWN = 10  # trials in the table at the end


@dataclass(frozen=True)
class Options:
    "Of `sweep`, beside the recipe and its changes."

    trials: int | None = None
    jobs: int = 1
    sampler: str | None = None  # None: a grid where only lists are given, else TPE
    pruner: str | None = None  # None: median, or none where the shape of the schedule is searched
    storage: str | None = None
    grace: float = GRACE
    resume: bool = False
    final: bool = False


def search(name: str, changes: Sequence[str], options: Options) -> Snapshot:
    "Run or join the sweep until all of its trials are finished; returns what came out. Raises CifarFastError."
    require_optuna()
    places = [c for c in changes if c.startswith(("name=", "exports="))]
    asked = [c for c in changes if c not in places]
    space = None if options.resume and not any(map(is_searched, asked)) else parse_space(name, asked)
    resolved = override(load_recipe(name), [*(space.fixed if space else asked), *places])
    if resolved.procs != 1:
        raise SweepError(f"procs={resolved.procs or 'auto'}: a trial trains in one process, and --jobs N trains N "
                         f"trials at a time; give procs=1")
    exports = expand_path(resolved.exports).absolute()
    folder = exports / SWEEPS / resolved.name
    definition, grid, trials = None, None, options.trials
    if space:
        definition, grid = define(name, space, resolved, options)
        trials = trials or (len(grid) if grid else None if options.resume else TRIALS)
        require_combinations(grid, trials)
    if options.resume and not options.storage and not (folder / SQLITE).exists():
        raise SweepError(f"there is no sweep in {folder}: leave out --resume to start one, or give the --storage that "
                         f"it is in")
    if space:
        def require(own: bool) -> None:
            require_held_out(resolved, name, asked, own)
            if options.final:
                require_final(name, space, own)

        require(may_have_valid(resolved.data))  # before images are fetched or decoded
        source = images_of(resolved)
        require(bool(source.valid))
    sweep = Sweep(resolved.name, folder, options.storage, options.grace)
    if space:
        sweep.create_or_join(definition, trials, grid, source.fingerprint, any_pruner=not options.pruner)
    else:
        sweep.create_or_join(None, None)
        grid = require_same(sweep, name, asked, options)
        require_combinations(grid, trials)
        sweep.create_or_join(None, trials, grid)  # more of them, once it is known to be this sweep
    own_folder(sweep)
    if not sweep.finished():
        if space and not options.pruner and sweep.definition.pruner == "none" and (bent := bending(space.texts)):
            log_progress(f"no trial is pruned, as schedules of other shapes ({', '.join(bent)}) compare at their end "
                         f"only; --pruner median prunes all the same")
        work_off(sweep, options)
    snapshot = report(sweep, "finished")
    print(result_text(snapshot, folder))
    if options.final:
        final(sweep.definition, snapshot, places)
    return snapshot


def define(name: str, space: Space, resolved: Recipe, options: Options) -> tuple[Definition, list[dict] | None]:
    "The definition of a new sweep, and the combinations of a grid."
    sampler = options.sampler or ("grid" if space.only_lists else "tpe")
    grid = list(space.grid()) if sampler == "grid" else None
    identity = recipe_id(describe(replace(resolved, name="")))
    pruner = options.pruner or ("none" if bending(space.texts) else "median")
    return Definition(name, identity, space.fixed, space.texts, sampler, pruner, resolved.seed), grid


def require_combinations(grid: list[dict] | None, trials: int | None) -> None:
    "Raises SpaceError for more trials than a grid has combinations."
    if grid and trials and trials > len(grid):
        raise SpaceError(f"--trials {trials}: the lists have {len(grid)} combinations; leave --trials out to run them "
                         f"all")


def require_same(sweep: Sweep, name: str, changes: Sequence[str], options: Options) -> list[dict] | None:
    """The combinations of a grid that is resumed without its ranges.

    Raises SweepError where the sweep is not what is typed, or its recipe was edited, or its images have changed.
    """
    stored = sweep.definition
    if stored is None:
        raise SweepError(f"the sweep {sweep.name} ended before it could save what it searches: repeat it with its "
                         f"ranges")
    space = parse_space(stored.recipe, [*stored.fixed, *(f"{k}={v}" for k, v in stored.space.items())])
    resolved = override(load_recipe(stored.recipe), list(space.fixed))
    now, grid = define(stored.recipe, space, resolved, Options(sampler=stored.sampler, pruner=stored.pruner))
    goes_on = options.final or options.trials or not sweep.finished()  # else it is only shown
    if now.recipe_id != stored.recipe_id and goes_on:
        raise SweepError(f"the recipe {stored.recipe} has changed since the sweep {sweep.name} began, and its trials "
                         f"would be of two recipes: restore it, or give a sweep of the new one a name of its own: "
                         f"name={sweep.name}-b")
    typed = [f"recipe {name}"] if name != stored.recipe else []
    typed += [change for change in changes if change not in stored.fixed]
    typed += [f"--sampler {options.sampler}"] if options.sampler not in (None, stored.sampler) else []
    typed += [f"--pruner {options.pruner}"] if options.pruner not in (None, stored.pruner) else []
    if typed:
        raise SweepError(f"{', '.join(typed)}: the sweep {sweep.name} goes on with its own settings (recipe "
                         f"{stored.recipe} {' '.join(stored.fixed)}, {stored.sampler}, {stored.pruner}); leave this "
                         f"out, or give another sweep a name of its own: name={sweep.name}-b")
    if goes_on and sweep.images:
        source = images_of(resolved)
        sweep.require_images(source.fingerprint)
        if options.final:
            require_final(stored.recipe, space, bool(source.valid))
    return grid


def require_held_out(recipe: Recipe, name: str, changes: Sequence[str], own: bool) -> None:
    """Raises SweepError for a recipe that would choose by the test set, or by nothing.

    `own`: whether the data has a validation split of its own.
    """
    if recipe.validate_on == "test":
        raise SweepError("validate_on=test would choose the settings by the test set; give validate_on=held_out "
                         "valid=0.1, which holds out a tenth of train")
    if not recipe.valid and not own:
        others = [change for change in changes if not change.startswith("valid=")]
        raise SweepError(f"a sweep chooses by accuracy on held-out images and never looks at the test set, and this "
                         f"recipe holds nothing out: add valid=0.1 (a tenth of train) or a number of images, as in "
                         f"python -m cifar_fast sweep {shlex.join([name, *others])} valid=0.1")


def own_folder(sweep: Sweep) -> None:
    "Raises SweepError where the folder holds trials of another sweep, which must not count as this one's."
    with sweep.lock():
        identity = sweep.study.user_attrs.get("id")
        if identity is None:
            sweep.study.set_user_attr("id", identity := uuid.uuid4().hex)
        path = sweep.folder / ID
        sweep.folder.mkdir(parents=True, exist_ok=True)
        try:
            write_new(path, identity)
        except FileExistsError:
            if path.read_text("utf-8") != identity:
                raise SweepError(f"{sweep.folder} holds the trials of another sweep, kept in another storage: give "
                                 f"this one a name of its own, name={sweep.name}-b, or move the folder away") from None


def work_off(sweep: Sweep, options: Options) -> None:
    "Run workers until no trial is left. A signal stops them at a checkpoint."
    watch = Watch(sweep)
    threads = threads_of(options.jobs)
    log_progress(f"{sweep.folder}: {len(sweep.trials())} trials, {watch.finished} finished; {options.jobs} "
                 f"{'process' if options.jobs == 1 else 'processes'} of {threads} "
                 f"{'thread' if threads == 1 else 'threads'}; "
                 f"a worker of another machine counts as dead after {options.grace:g} s without a sign")
    try:
        run_pool(work, (sweep.name, sweep.folder, sweep.url, sweep.grace), options.jobs, watch)
    except StopRequested:
        snapshot = report(sweep, "stopped")
        print(f"stopped at checkpoints, {snapshot.done} of {len(snapshot.trials)} trials finished\n"
              f"resume with: {command(snapshot, resumed_by(sweep, options))}", file=sys.stderr)
        raise
    except BaseException:
        report(sweep, "stopped")
        raise


def resumed_by(sweep: Sweep, options: Options) -> str:
    return f"{places(sweep.folder, bool(sweep.url))} --jobs {options.jobs} --resume"


class Watch:
    "Called now and then: prints finished trials, keeps the snapshot and the report up to date."

    def __init__(self, sweep: Sweep):
        self.sweep, self.drawn, self.written = sweep, 0.0, 0.0
        self.before = {t.number for t in take(sweep, "running").trials if t.done}  # by an earlier command
        self.told = set(self.before)

    @property
    def finished(self) -> int:
        return len(self.told)

    def __call__(self) -> int:
        snapshot, now = take(self.sweep, "running"), time.monotonic()
        new = [t for t in snapshot.trials if t.done and t.number not in self.told]
        for trial in new:
            self.told.add(trial.number)
            log_progress(line(trial, snapshot))
        done = [t for t in snapshot.trials if t.done and t.number not in self.before]
        if len(done) >= 3 and all(t.state == "failed" for t in done):
            raise SweepError(f"the first {len(done)} trials all failed, so the sweep stops: {done[0].error}; see the "
                             f"logs in {self.sweep.folder}/logs. Once the cause is gone, the same command with "
                             f"--resume goes on with the other trials")
        if new or now - self.written > 5:
            if self.drawn and now - self.drawn < REDRAW:
                snapshot.write(self.sweep.folder)
            else:
                report(self.sweep, "running")
                self.drawn = time.monotonic()
            self.written = time.monotonic()
        return len(self.told)


def line(trial: Trial, snapshot: Snapshot) -> str:
    "What a finished trial is told by."
    settings = " ".join(change(k, v, short=True) for k, v in trial.params.items())
    what = f"{trial.accuracy:.2%}" if trial.accuracy is not None else trial.state + (
        f" ({trial.error})" if trial.error else "")
    best = f"best {snapshot.best.accuracy:.2%}, trial {snapshot.best.number}; " if snapshot.best else ""
    return f"trial {trial.number}: {what}  {settings}  [{best}{snapshot.done} of {len(snapshot.trials)} done]"


def change(key: str, value, short: bool = False) -> str:
    return f"{key}={value:.4g}" if short and isinstance(value, float) else f"{key}={value}"


def report(sweep: Sweep, state: str) -> Snapshot:
    "Write the snapshot, the figures and report.html."
    snapshot = take(sweep, state, importances(sweep))
    snapshot.write(sweep.folder)
    rebuild(snapshot, sweep.folder)
    return snapshot


def result_text(snapshot: Snapshot, folder: Path) -> str:
    "The best trials, and what to do next."
    head, *body = rows(snapshot)
    text = ["\n".join(aligned([head, *body[:SHOWN]], left={0, 1}))]
    if len(body) > SHOWN:
        text.append(f"and {len(body) - SHOWN} more in the report")
    best = snapshot.best
    if best is None:
        text.append("no trial was complete: the column state says why; widen or move the ranges")
    else:
        settings = " ".join(change(k, v) for k, v in best.params.items())
        text.append(f"best: trial {best.number}, {best.accuracy:.2%} on held-out images: {settings}")
    text.append(f"open {folder / REPORT}")
    return "\n".join(text)


# ---------------------------------------------------------------- the winner


def final_changes(fixed: Sequence[str], params: dict) -> list[str]:
    "Of the winner, trained on all of train."
    kept = [c for c in fixed if not c.startswith(("valid=", "report="))]
    return [*kept, *(change(k, v) for k, v in params.items()), "valid=0"]


def require_final(name: str, space: Space, own: bool) -> None:
    """Raises SpaceError before the sweep where a winner of it could not be trained without held-out images.

    Each choice of a list is tried, and both ends of a range. `own`: whether the data has a validation split of its own.
    """
    tried = {d.key: d.choices or [f"{int(end) if d.kind == 'int' else end!r}" for end in (d.low, d.high)]
             for d in space.dimensions}
    first = {key: values[0] for key, values in tried.items()}
    for key, values in tried.items():
        for value in values:
            changes = [f"{k}={v}" for k, v in {**first, key: value}.items()]
            try:
                check(recipe := override(load_recipe(name), [*space.fixed, *changes, "valid=0"]))
                require_validation(recipe, own)
            except Exception as e:
                raise SpaceError(f"--final trains the winner on all of train and tests it once, which does not work "
                                 f"with these settings and {key}={value}: {e}; leave out --final or the "
                                 f"setting") from None


def final(definition: Definition, snapshot: Snapshot, places: Sequence[str]) -> None:
    "Train the winner once on all of train and evaluate it once on test; a second call shows that run."
    if snapshot.best is None:
        raise SweepError("no trial was complete, so there is no winner to train")
    changes = [*final_changes(definition.fixed, snapshot.best.params), f"name={snapshot.name}-best",
               *(c for c in places if c.startswith("exports="))]
    recipe = with_checksums(override(load_recipe(definition.recipe), changes))
    path = export_path(recipe)
    if same_as_finished(path, recipe, set_by_data(changes)):
        print(f"the winner has been trained and tested already\n{summary(read_card(path), path)}")
        return
    stopped = any(f.path == path for f in stopped_folders(path))
    if path.exists() and not stopped:
        again = shlex.join([definition.recipe, *changes])
        raise SweepError(f"{path} holds another run, perhaps an earlier winner: python -m cifar_fast recipe {again} "
                         f"--overwrite trains this one in its place")
    print(f"the winner, trained on all of train and tested once: {path}", flush=True)
    train(recipe, resume=True if stopped else None, given=[definition.recipe, *changes])
