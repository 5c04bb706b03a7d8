"""A run that is saved: prepared or resumed → trained → evaluated once → saved in one folder, with its row."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from cifar_fast.data.sources import Source
from cifar_fast.export import predictions
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.files import LEARNER, RECIPE
from cifar_fast.export.measure import make_card
from cifar_fast.export.predictions import Predictions
from cifar_fast.export.save import write_model
from cifar_fast.export.source import copy_source
from cifar_fast.export.summary import last_record, result_text, summary
from cifar_fast.export.trained import save_trained
from cifar_fast.export.trust import trust
from cifar_fast.recipe import Recipe, describe, load_recipe
from cifar_fast.reporting.results import (
    OWN,
    add_missing_rows,
    add_row,
    changes,
    draw_published,
    leave_replaced,
    leave_row,
    read,
    row,
)
from cifar_fast.runs.data_lines import data_lines, held_text
from cifar_fast.runs.failures import explained, is_worker_cut_off, wait_for_dead_worker
from cifar_fast.runs.follow import dismiss, follow, lead
from cifar_fast.runs.names import choose_folder, set_by_data
from cifar_fast.runs.run_dir import (
    Interrupted,
    RunFolder,
    command,
    identity,
    machine,
    require_same,
    where,
)
from cifar_fast.runs.started import starts
from cifar_fast.runs.track import attached, tracking
from cifar_fast.runs.train_batch import save_train_batch
from cifar_fast.training.callbacks.checkpoint import Checkpoint
from cifar_fast.training.callbacks.history import DivergedError
from cifar_fast.training.callbacks.progress import Progress, choose_mode, redirected
from cifar_fast.training.callbacks.tracking import Tracker
from cifar_fast.training.checksums import with_checksums
from cifar_fast.training.fit import fit
from cifar_fast.training.parallel import BATCH_NORM, require_procs
from cifar_fast.training.prepare import Run, prepare, settle_memory_format
from cifar_fast.training.state import TrainState
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import write_text
from cifar_fast.utils.ranks import from_first, here, leave
from cifar_fast.utils.signals import defer_signals, hold_signals
from cifar_fast.utils.terminal import accuracy_curves


def train(
    recipe: Recipe,
    find_lr: bool = False,
    *,
    resume: bool | None = None,  # a run that stopped: True resumes it, False discards it, None raises Interrupted
    allow_changes: bool = False,  # resume although something differs from what the run was started with
    overwrite: bool = False,  # replace a finished run of this name; else this one gets a numbered name
    given: Sequence[str] = (),  # what was typed, kept for the command that resumes
    log: str = "auto",  # what it shows while it trains: one of `callbacks.progress.MODES`
) -> Card | None:
    "Run `recipe` and save it; returns the card that was written (the first of several processes does)."
    require_procs(recipe.procs, here())
    mode = choose_mode(log)
    progress = partial(Progress, mode=mode, out=sys.stdout)
    named = any(word.startswith("name=") for word in given)
    if not here().first:
        return follow(recipe, given)
    with redirected(mode):
        card, path = start(recipe, find_lr, resume, allow_changes, overwrite, named, given, progress)
    if mode == "quiet":
        print(f"{result_text(card)}\nsaved: {path}/")
    elif mode == "json":
        print(json.dumps(last_record(card, path)))
    return card


def start(recipe: Recipe, find_lr: bool, resume: bool | None, allow_changes: bool, overwrite: bool, named: bool,
          given: Sequence[str], progress: Callable[..., Progress], tuning: bool = False) -> tuple[Card, Path]:
    "`train`, from where a run of this recipe stopped or from scratch; also returns the run's folder."
    recipe = with_checksums(recipe)
    # What must be refused is refused now, before images are read and hours of training.
    folder, _ = choose_folder(recipe, named, resume, overwrite, unknown := set_by_data(given[1:]))
    exports = folder.path.parent
    if (exports / OWN).exists():
        read(exports / OWN)
    base = load_recipe(given[0]) if given else None
    run = None if folder.complete or is_done(folder, resume) else prepare(recipe, typed=given, tuning=tuning)
    # Again, as another run may have started in the meantime; now with the settings that the images decide.
    folder, note = choose_folder(run.recipe if run else recipe, named, resume, overwrite,
                                 frozenset() if run else unknown)
    if note:
        print(note, flush=True)
    add_missing_rows(exports)
    if is_done(folder, resume):
        dismiss()
        print(f"this run has finished already\n{summary(card := read_card(folder.path), folder.path)}")
        return card, folder.path
    asked, recipe = recipe, replace(run.recipe if run else recipe, name=folder.path.name)
    with folder:
        saved = None if resume is False else folder.interrupted()  # one that cannot be read is discarded as well
        if (saved or folder.complete) and resume is None:
            raise Interrupted(f"a run of {recipe.name} stopped {where(saved) if saved else 'after its last epoch'} and "
                              f"is kept in {folder.working}: --resume continues it, --restart discards it")
        if folder.complete and resume:
            dismiss()
            overwrite = overwrite or bool(saved and saved["about"].get("overwrite"))
            return finish(folder, overwrite), folder.path
        saved = saved if resume else None
        run = replace(run, recipe=recipe) if run else prepare(recipe, typed=given, tuning=tuning)
        about = {**identity(recipe, run.source.fingerprint, machine(run), run.commit), "given": list(given),
                 # Taken now, as the recipe's file may be edited during training.
                 "typed": changes(asked, base, find_lr), "recipe_name": base.name if base else recipe.name,
                 "lr": recipe.lr, "overwrite": overwrite}
        if saved:
            about = resumed(about, saved["about"], recipe, allow_changes, where(saved))
        elif resume:
            same_as_started(folder.staged / RECIPE, about, allow_changes)
            print("the run stopped before its first checkpoint: it starts from scratch", flush=True)
        folder.start_run(keep=bool(saved))
        lead(run, about, saved, find_lr and not saved)
        run_training(run, folder, about, saved, find_lr and not saved, progress)
        return finish(folder, about["overwrite"]), folder.path


def is_done(folder: RunFolder, resume: bool | None) -> bool:
    "Whether the run that is to be resumed has finished."
    return bool(resume) and not folder.working.exists()


def resumed(about: dict, then: dict, recipe: Recipe, allow_changes: bool, place: str) -> dict:
    "The `about` of a resumed run. Raises RunError where it differs from what the run was started with."
    allowed = require_same(then, about, allow_changes)
    carried_over = {"typed": then["typed"]} if not allowed else {}
    if recipe.lr == then["recipe"]["lr"]:
        carried_over["lr"] = then["lr"]  # the rate from lr_find
    print(f"resumes {place}" + "".join(f"\n  {line}" for line in allowed), flush=True)
    return {**about, **carried_over, "overwrite": about["overwrite"] or bool(then.get("overwrite"))}


def same_as_started(path: Path, about: dict, allow_changes: bool) -> None:
    "Raises RunError where a run without a checkpoint was started with another recipe, which is saved at `path`."
    try:
        then = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # it stopped before that too
        return
    then = {k: v for k, v in then.items() if k in about["recipe"]}
    require_same({**about, "recipe": {**about["recipe"], **then}}, about, allow_changes)


def finish(folder: RunFolder, overwrite: bool) -> Card:
    "Move the complete run to its folder and add its row; idempotent."
    with hold_signals():
        if overwrite and folder.staged.is_dir() and folder.path.is_dir():
            with suppress(ExportError):  # a damaged card: nobody knows its row
                leave_replaced(folder.staged, row(read_card(folder.path)))
        folder.publish(overwrite)
        card = read_card(folder.path)
        try:
            add_row(folder.path)
        finally:
            folder.discard()  # with or without its row in the table the run is complete
    print(summary(card, folder.path))
    return card


def run_training(run: Run, folder: RunFolder, about: dict, saved: dict | None, find_lr: bool,
         progress: Callable[..., Progress]) -> None:
    "The run itself, from the first step or from `saved` until all its files are staged."
    from cifar_fast.reporting import plots
    from cifar_fast.training.lr_finder import find

    recipe, staged = run.recipe, folder.staged
    settle_memory_format(run, saved and saved["state"])
    print(headline(run), *data_lines(run), *starts(run), sep="\n", flush=True)
    checkpoint = Checkpoint(folder.checkpoint, about, recipe.checkpoint_epochs, recipe.checkpoint_minutes, saved)
    try:
        write_text(staged / RECIPE, json.dumps(describe(recipe), indent=1) + "\n")
        if find_lr:
            search = find(run)
            about["lr"] = from_first(search["suggestions"]["valley"]["lr"])
            plots.save(plots.lr_find(search, recipe.name), staged / "lr_find.png")
            print(f"lr_find: valley {about['lr']:.3g}, used as the peak learning rate")
        with defer_signals(checkpoint), tracking(recipe, staged, about, saved) as tracker:
            draw = partial(save_train_batch, path=staged / "augmented.png") if recipe.report else None
            fitted = fit(run, about["lr"], folder=staged, progress=progress, checkpoint=checkpoint, draw=draw,
                         tracker=tracker)
            leave()  # the others are done
            checkpoint.done = True
            if checkpoint.stop:  # after the last save
                raise checkpoint.stop
            card, predicted = make_card(replace(recipe, lr=about["lr"]), run, fitted)
            card = replace(card, settings=about["typed"], recipe_name=about["recipe_name"])
            stage(run, folder, card, predicted, fitted.state, tracker)
    except BaseException as e:
        if is_worker_cut_off(e, recipe):
            wait_for_dead_worker(recipe.workers)
        print(f"\n{stopped_message(folder, about, e, checkpoint.done)}", file=sys.stderr)
        if error := explained(e, recipe):
            raise error from e
        raise


def stage(run: Run, folder: RunFolder, card: Card, predicted: Predictions | None, state: TrainState,
          tracker: Tracker | None = None) -> None:
    "Write the files of a finished run, the card last: its presence means that the others are complete."
    from cifar_fast.reporting import plots

    staged = folder.staged
    if predicted:
        predicted.save(staged / predictions.NAME)
    save_trained(staged, run.source.train, run.learn.dls.train_ds.items, run.seen)
    (staged / "best.safetensors").unlink(missing_ok=True)  # only needed during training
    card = replace(card, source_file=copy_source(card.arch, staged))
    card = write_model(staged, run.learn.model, card)
    card = card if run.tuning else with_onnx(staged, card, run.source)
    try:
        trust(staged / LEARNER, folder.path / LEARNER)  # written by the user's own run
    except (OSError, ValueError) as e:
        warnings.warn(f"{folder.path / LEARNER} could not be added to your list of trusted pickles ({e})", stacklevel=2)
    plots.save(plots.history(state.frame(), title=card.name, target=card.target_accuracy,
                             valid_name=card.validated_on), staged / "history.png")
    plots.save(plots.learning_rate(state.hypers, card.name), staged / "learning_rate.png")
    if card.metrics:
        plots.save(plots.confusion(card.metrics.confusion, card.vocab, f"{card.name}, {card.split}"),
                   staged / "confusion.png")
    draw_published(staged, card, state.frame())
    if run.recipe.report:
        stage_report(run, folder, card, predicted, state)
    leave_row(staged, row(card))
    attached(tracker, card, staged).write(staged)
    if card.epochs > 1:
        print(f"\n{accuracy_curves(state.frame(), card.target_accuracy)}\n")


def with_onnx(staged: Path, card: Card, source: Source) -> Card:
    "The card with model.onnx; a failure is only a warning, since `export --to onnx` can make it later."
    from cifar_fast.export.convert import onnx_after_training

    try:
        return onnx_after_training(staged, card, source)
    except CifarFastError as e:
        warnings.warn(f"no model.onnx was made, so that predict and serve take torch: {e}", stacklevel=2)
        return card


def stage_report(run: Run, folder: RunFolder, card: Card, predicted: Predictions | None, state: TrainState) -> None:
    "Write the report; a failure is only a warning, since `report` can write it later from the run's files."
    from cifar_fast.reporting.report import report
    from cifar_fast.reporting.report.build import images_of

    try:
        report(folder.staged, card, state.frame(), predicted, predicted and images_of(predicted, run.source),
               run.audit)
    except Exception as e:  # an unusual dataset may break a figure in any way
        warnings.warn(f"{folder.path / 'report.html'} could not be made ({type(e).__name__}: {e}); the run itself is "
                      f"whole: python -m cifar_fast report {shlex.quote(str(folder.path))} tries again", stacklevel=2)


def stopped_message(folder: RunFolder, about: dict, why: BaseException, trained: bool) -> str:
    "The message after a stop or an error: what is kept and how to resume."
    kept = f"stopped; the run's files so far are in {folder.working}, nothing was exported"
    if trained and not isinstance(why, DivergedError):
        kept = f"stopped while it was being saved; {folder.working} keeps the whole training"
    if not folder.checkpoint.exists():
        return f"{kept}; no checkpoint had been written yet"
    if isinstance(why, DivergedError):  # the same rate would end the same way, bit for bit
        return (f"{kept}; its last good checkpoint is kept\nresume at a lower rate: {command(about)} --allow-changes "
                f"lr=…; if that diverges too, --restart")
    return f"{kept}\nresume with: {command(about)}"


def headline(run: Run) -> str:
    r, p = run.recipe, run.audit.profile
    size = f"{run.source.size}×{run.source.size}"
    epochs = "1 epoch" if r.epochs == 1 else f"{r.epochs} epochs"
    return (f"{r.name}: {r.arch} ({p.params:,} parameters, RF {p.receptive_field}) on {run.source.name} "
            f"({len(run.learn.dls.train_ds):,} images of {size}, {held_text(run)}), {epochs}, "
            f"{balancing(run)}seed {r.seed}, "
            f"{run.device} {run.precision} {run.memory_format}{timed(run)} {'compiled' if run.compiled else 'eager'}"
            + (f", {r.procs} processes, batch norm {BATCH_NORM[r.sync_bn]}" if here().several else ""))


def balancing(run: Run) -> str:
    "How unequal classes are made to count alike, if they are."
    if run.recipe.balance == "loss":
        weights = run.learn.loss_func.weight
        return f"balance=loss (class weights {weights.min():.2g} to {weights.max():.2g}), "
    return f"balance={run.recipe.balance}, " if run.recipe.balance != "none" else ""


def timed(run: Run) -> str:
    "The speeds by which the memory format was chosen, if it was timed."
    speeds = ", ".join(f"{name} {speed:,.0f}" for name, speed in run.format_speeds.items())
    return speeds and f" (images/s: {speeds})"
