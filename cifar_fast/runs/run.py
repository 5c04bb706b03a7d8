"""One run that is kept: prepared or resumed → fitted → met by the test set once → exported, with its row."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from cifar_fast.export import predictions
from cifar_fast.export.card import finished, last_record, scored, summary, target_accuracy, valid_name
from cifar_fast.export.files import export_files
from cifar_fast.export.predictions import Predictions
from cifar_fast.export.predictor import save_export
from cifar_fast.export.trust import trust
from cifar_fast.recipe import Recipe, describe
from cifar_fast.reporting.results import add, changes, draw_published, read, row
from cifar_fast.runs.failures import explained, is_cut_off, wait_for_the_dead
from cifar_fast.runs.run_dir import (
    Interrupted,
    RunError,
    RunFolder,
    command,
    export_path,
    identity,
    require_same,
    where,
)
from cifar_fast.runs.train_batch import save_train_batch
from cifar_fast.training.callbacks.checkpoint import Checkpoint
from cifar_fast.training.callbacks.history import DivergedError
from cifar_fast.training.callbacks.progress import Progress, choose_mode, redirected
from cifar_fast.training.fit import fit
from cifar_fast.training.prepare import Run, prepare, settle_memory_format
from cifar_fast.training.state import TrainState
from cifar_fast.utils.device import device_name
from cifar_fast.utils.environment import cpu_name
from cifar_fast.utils.files import write_text
from cifar_fast.utils.signals import defer_signals
from cifar_fast.utils.terminal import epochs_drawn


def train(
    recipe: Recipe,
    find_lr: bool = False,
    *,
    resume: bool | None = None,  # a run that stopped: True continues it, False begins anew, None raises Interrupted
    allow_changes: bool = False,  # go on although something differs from what the run was begun with
    given: Sequence[str] = (),  # what was typed, kept for the command that resumes
    log: str = "auto",  # what it shows while it goes: one of `callbacks.progress.MODES`
) -> dict:
    "Run `recipe` and leave its exports; returns the card that went into the .json."
    mode = choose_mode(log)
    progress = partial(Progress, mode=mode, out=sys.stdout)
    with redirected(mode):
        card = begin(recipe, find_lr, resume, allow_changes, given, progress)
    if mode == "quiet":
        print(scored(card))
    elif mode == "json":
        print(json.dumps(last_record(card, export_path(recipe))))
    return card


def begin(recipe: Recipe, find_lr: bool, resume: bool | None, allow_changes: bool, given: Sequence[str],
          progress: Callable[..., Progress]) -> dict:
    "`train`, from where a run of this recipe stopped or from the start."
    run = prepare(recipe, typed=given)
    stem = export_path(recipe)
    table = stem.parent / "results.csv"
    if table.exists():
        read(table)  # what is wrong with it is better told before hours of training than after
    folder = RunFolder(stem)
    if resume and not folder.working.exists():
        raise RunError(f"no run of {recipe.name} has stopped in {stem}: leave out --resume to begin one")
    with folder:
        start = None if resume is False else folder.interrupted()
        if start and resume is None:
            raise Interrupted(f"a run of {recipe.name} stopped {where(start)} and is kept in {folder.working}: "
                              f"--resume continues it, --restart throws it away")
        about = {**identity(recipe, run.source.fingerprint, machine(run), run.commit), "given": list(given),
                 # Now: the recipe's file may be edited while it trains.
                 "typed": changes(recipe, find_lr), "lr": recipe.lr}
        if start:
            allowed = require_same(start["about"], about, allow_changes)
            about["typed"] = about["typed"] if allowed else start["about"]["typed"]
            if recipe.lr == start["about"]["recipe"]["lr"]:
                about["lr"] = start["about"]["lr"]  # what lr_find had found
            print(f"goes on {where(start)}" + "".join(f"\n  {line}" for line in allowed), flush=True)
        elif resume:
            print("the run stopped before its first checkpoint: it begins anew", flush=True)
        folder.begin(keep=bool(start))
        return work(run, folder, about, start, find_lr and not start, progress)


def work(run: Run, folder: RunFolder, about: dict, start: dict | None, find_lr: bool,
         progress: Callable[..., Progress]) -> dict:
    "The run itself, from the first step or from `start` to its row in the table."
    from cifar_fast.reporting import plots
    from cifar_fast.training.lr_finder import find

    recipe, stem, running = run.recipe, folder.stem, folder.working
    settle_memory_format(run, start and start["state"])
    print(headline(run), flush=True)
    checkpoint = Checkpoint(folder.checkpoint, about, recipe.checkpoint_epochs, recipe.checkpoint_minutes, start)
    try:
        write_text(running / "recipe.json", json.dumps(describe(recipe), indent=1) + "\n")
        if find_lr:
            found = find(run)
            about["lr"] = found["suggestions"]["valley"]["lr"]
            plots.save(plots.lr_find(found), running / "lr_find.png")
            print(f"lr_find: valley {about['lr']:.3g}, used as the peak learning rate")
        with defer_signals(checkpoint):
            draw = partial(save_train_batch, path=running / "augmented.png") if recipe.report else None
            fitted = fit(run, about["lr"], folder=running, progress=progress, checkpoint=checkpoint, draw=draw)
            state = fitted.state
            checkpoint.done = True
            if checkpoint.stop:  # after the last save
                raise checkpoint.stop
            card, said = finished(replace(recipe, lr=about["lr"]), run, fitted)
            card["resumed"] = state.resumes
            if said:
                said.save(running / predictions.NAME)
            leave(run, folder, card, said, state)
    except BaseException as e:
        if is_cut_off(e, recipe):
            wait_for_the_dead(recipe.workers)
        print(f"\n{what_is_kept(folder, about, e, checkpoint.done)}", file=sys.stderr)
        if told := explained(e, recipe):
            raise told from e
        raise
    try:
        # A run that was killed right here has added its row already.
        add(row(card, about["typed"]), stem.parent / "results.csv", spare=stem / "row.csv", once=state.resumes > 0)
    finally:
        folder.end()  # with or without its row in the table the run is complete
    return card


def leave(run: Run, folder: RunFolder, card: dict, said: Predictions | None, state: TrainState) -> None:
    "The export, the history and the plots of a run that has ended. Doing it twice gives the same."
    from cifar_fast.reporting import plots

    recipe, stem = run.recipe, folder.stem
    save_export(stem, run.learn.model, card)
    pickle = export_files(stem)[2]
    try:
        trust(pickle)  # made here, by the user's own run
    except (OSError, ValueError) as e:
        warnings.warn(f"{pickle} could not be added to your list of trusted pickles ({e})", stacklevel=2)
    folder.publish()
    plots.save(plots.history(state.frame(), title=recipe.name, target=target_accuracy(card),
                             valid_name=valid_name(recipe)), stem / "history.png")
    plots.save(plots.learning_rate(state.hypers), stem / "learning_rate.png")
    if found := card["test"] or card["held_out"]:
        title = f"{recipe.name}, {card['on']}"
        plots.save(plots.confusion(found["confusion"], card["vocab"], title), stem / "confusion.png")
    draw_published(stem, recipe.name, card["recipe"], state.frame())
    if recipe.report:
        leave_report(run, stem, card, said, state)
    if card["epochs"] > 1:
        print(f"\n{epochs_drawn(state.frame(), recipe.target or None)}\n")
    print(summary(card, stem))


def leave_report(run: Run, stem: Path, card: dict, said: Predictions | None, state: TrainState) -> None:
    "A report that cannot be made must not cost a run: it can be made again from what the run left."
    from cifar_fast.reporting.report import report
    from cifar_fast.reporting.report.build import images_of

    try:
        report(stem, card, state.frame(), said, said and images_of(said, run.source), run.audit)
    except Exception as e:  # whatever a figure meets in a dataset of somebody's own
        warnings.warn(f"{stem / 'report.html'} could not be made ({type(e).__name__}: {e}); the run itself is whole: "
                      f"python -m cifar_fast report {stem} tries again", stacklevel=2)


def machine(run: Run) -> dict:
    "What a run's weights depend on beside the recipe: threads divide a sum in another order."
    return {"device": device_name(run.device), "cpu": cpu_name(), "precision": run.precision, "compiled": run.compiled,
            "threads": torch.get_num_threads()}


def what_is_kept(folder: RunFolder, about: dict, why: BaseException, trained: bool) -> str:
    "For whoever stopped a run, or met an error in it."
    kept = f"stopped; what the run had written is in {folder.working}, nothing was exported"
    if trained and not isinstance(why, DivergedError):
        kept = f"stopped while it left its files; {folder.working} keeps the whole training"
    if not folder.checkpoint.exists():
        return f"{kept}; no checkpoint had been written yet"
    if isinstance(why, DivergedError):  # the same rate would end the same way, bit for bit
        return (f"{kept}; its last good checkpoint is kept\ngo on at a lower rate: {command(about)} --allow-changes "
                f"lr=…; where that ends alike, --restart")
    return f"{kept}\ngo on with: {command(about)}"


def headline(run: Run) -> str:
    r, p = run.recipe, run.audit.profile
    held = {"test": "validates and selects on TEST, as published"}.get(
        r.validate_on, f"{len(run.learn.dls.valid_ds):,} of train held out" if r.valid else "nothing held out")
    epochs = "1 epoch" if r.epochs == 1 else f"{r.epochs} epochs"
    return (f"{r.name}: {r.arch} ({p.params:,} parameters, RF {p.receptive_field}) on {run.source.name} "
            f"({len(run.learn.dls.train_ds):,} images, {held}), {epochs}, seed {r.seed}, "
            f"{run.device} {run.precision} {run.memory_format}{timed(run)} {'compiled' if run.compiled else 'eager'}")


def timed(run: Run) -> str:
    "What the memory format was chosen by, where it was timed."
    speeds = ", ".join(f"{name} {speed:,.0f}" for name, speed in run.format_speeds.items())
    return speeds and f" (images/s: {speeds})"
