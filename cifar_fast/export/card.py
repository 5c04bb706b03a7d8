"""What is told of a finished run: the card in its .json, and the lines at its end."""

from __future__ import annotations

import hashlib
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cifar_fast.data.block import test_dl
from cifar_fast.export.files import export_files
from cifar_fast.export.metrics import scores
from cifar_fast.export.predictions import Predictions
from cifar_fast.export.predictor import probabilities
from cifar_fast.recipe import Recipe, describe
from cifar_fast.training.callbacks.history import DivergedError
from cifar_fast.training.callbacks.stopping import watched
from cifar_fast.training.fit import Fitted
from cifar_fast.training.prepare import Run
from cifar_fast.utils.device import device_name
from cifar_fast.utils.environment import versions


def valid_name(recipe: Recipe) -> str:
    "What this recipe's validation figures are measured on."
    return "test (selected on test)" if recipe.validate_on == "test" else "held-out"


def finished(recipe: Recipe, run: Run, fitted: Fitted) -> tuple[dict, Predictions | None]:
    """The card of a fitted run, and what it predicted; the Learner is left with the weights to export (EMA's, if any).

    The test set is met here, once, by those weights (and beside them by the ones without averaging).
    """
    learn, source = run.learn, run.source
    state, average = fitted
    frame, seconds = state.frame(), state.seconds
    dl, labels, on = measured_on(run)
    own = measure(learn.model, dl, labels, source.vocab, tta=False)[0] if average and on else None
    if average:
        learn.model.load_state_dict(average.state_dict())
    measured, plain = measure(learn.model, dl, labels, source.vocab, recipe.tta) if on else (None, None)
    if measured and average:
        measured["accuracy_without_ema"] = own["accuracy"]
    require_numbers(learn.model, plain)
    said = on and Predictions(labels, plain.argmax(1), plain, tuple(source.vocab), which_images(run, on), on,
                              None if on == "test" else held_out_items(run))
    mean, std = recipe.stats or (source.mean, source.std)
    best = None
    if "valid_accuracy" in frame:
        column = watched(frame.columns)
        row = frame.loc[frame[column].idxmax()]
        best = {"epoch": int(row["epoch"]), "accuracy": float(row[column]), "on": valid_name(recipe)}
    card = {
        "name": recipe.name,
        "arch": recipe.arch,
        "vocab": list(source.vocab),
        "normalize": {"mean": [float(m) for m in mean], "std": [float(s) for s in std]},
        "test": measured if on == "test" else None,
        "held_out": measured if on == "held-out" else None,
        "on": valid_name(recipe) if on and recipe.validate_on == "test" else on,
        "protocol": ("selected on test, as published" if recipe.validate_on == "test" else
                     "validated on a split of train, the test set left alone" if on == "held-out" else
                     "nothing selected, the last weights met the test set once" if on else "not measured"),
        "last_epoch": {k: float(v) for k, v in frame.iloc[-1].items()},
        "best_epoch": best,
        "epochs": len(frame),
        "seconds": {"training": float(frame["seconds"].sum()), "all": seconds,
                    "epoch": float(frame["seconds"].median()), "to_85": seconds_to(0.85, frame)},
        "audit": run.audit.as_dict(),
        "waived": dict(recipe.waive),
        "mixed": dict(state.mix_counts) or None,
        "recipe": describe(recipe),
        "data": {"name": source.name, "fingerprint": source.fingerprint, "train": len(learn.dls.train_ds),
                 "test": len(source.test or ()), "skipped": len(source.skipped)},
        "machine": {"device": device_name(run.device), "precision": run.precision, "compiled": run.compiled,
                    "memory_format": state.memory_format, "format_speeds": state.format_speeds,
                    "threads": torch.get_num_threads(), "platform": platform.system()},
        "versions": versions(),
        "commit": run.commit,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    return card, said or None


def require_numbers(model, probs: np.ndarray | None) -> None:
    "Raise DivergedError for a trained net that answers with no numbers: it is no result, and is not exported."
    state = [v for v in model.state_dict().values() if v.is_floating_point()]
    if not all(bool(torch.isfinite(v).all()) for v in state) or (probs is not None and not np.isfinite(probs).all()):
        raise DivergedError("the trained model answers with non-finite values (NaN or inf), so nothing was exported; "
                            "try a lower learning rate (lr=…), or clip=1")


def which_images(run: Run, on: str) -> str:
    "Names the images that a run was measured on: two runs of the same value can be compared image by image."
    if on == "test":
        return f"{run.source.fingerprint}/test"
    items = held_out_items(run).astype("<i8")
    return f"{run.source.fingerprint}/{hashlib.sha256(items.tobytes()).hexdigest()[:16]}"


def held_out_items(run: Run) -> np.ndarray:
    "Places in train of the held-out images, in their order."
    return np.array([int(i) for i in run.learn.dls.valid_ds.items])


def target_accuracy(card: dict) -> float:
    "The accuracy that a run's curves are held against: its own target, else the 85 % that all here set out for."
    target = (card.get("recipe") or {}).get("target")
    return target if type(target) in (int, float) and 0 < target <= 1 else 0.85  # a card may be anybody's


def seconds_to(target: float, frame: pd.DataFrame) -> float | None:
    "Seconds of training until validation accuracy first reached `target`; None where it did not, or none was taken."
    column = watched(frame.columns)
    if column not in frame or not (reached := frame[column] >= target).any():
        return None
    return float(frame["seconds"].cumsum()[reached.idxmax()])


def measured_on(run: Run):
    """(DataLoader, labels, 'held-out' or 'test') that a finished run is measured on; (None, None, None) without either.

    A run that holds a part of train out is there to tune on: it leaves the test set alone.
    """
    dls, source = run.learn.dls, run.source
    if run.recipe.validate_on == "held_out" and len(dls.valid_ds):
        return dls.valid, source.train.labels[[int(i) for i in dls.valid_ds.items]], "held-out"
    if source.test:
        return test_dl(dls, source), source.test.labels, "test"
    return None, None, None


def measure(model, dl, labels, vocab, tta: bool) -> tuple[dict, np.ndarray]:
    "Scores of `model` on a DataLoader in order, plain and with TTA; and the plain probabilities (N, C)."
    plain, mirrored = probabilities(model, (x.as_subclass(torch.Tensor) for x, *_ in dl), tta)
    found = scores(plain, labels, vocab)
    if tta:
        found["accuracy_tta"] = float((mirrored.argmax(1) == labels).mean())
    return found, plain


def summary(card: dict, stem: Path) -> str:
    "What a run says at its end: plain accuracy first, TTA beside it, and where things are."
    lines = [scored(card)]
    if card["held_out"] and not card["test"]:
        lines.append(f"the test set was left alone; python -m cifar_fast evaluate {stem} meets it")
    weights, json_file, pkl = export_files(stem)
    lines.append(f"left: {weights}, {json_file.name}, {pkl.name}, plots and history in {stem}/, "
                 f"a row in {stem.parent / 'results.csv'}")
    if (page := stem / "report.html").is_file():
        lines.append(f"open: {page}")
    lines.append(f"next: python -m cifar_fast predict {stem} IMAGE…, or serve {stem}")
    return "\n".join(lines)


def last_record(card: dict, stem: Path) -> dict:
    "What a run came to, for a program: the object that follows those of the epochs."
    found = card["test"] or card["held_out"] or {}
    figures = {k: v for k, v in found.items() if k.startswith("accuracy") or k == "n"}
    return {"done": True, "export": str(stem), "on": card["on"], "protocol": card["protocol"], **figures,
            "best_epoch": card["best_epoch"], "seconds": card["seconds"]}


def scored(card: dict) -> str:
    "The accuracy of a run, in a line or two."
    lines = []
    if card["protocol"].startswith("selected on test"):
        last, best = card["last_epoch"], card["best_epoch"]
        lines.append(f"last epoch {last[watched(last)]:.2%}, best {best['accuracy']:.2%} (epoch {best['epoch']}, "
                     f"selected on test)")
    found, on = card["test"] or card["held_out"], "test" if card["test"] else "held-out"
    took = f"{card['seconds']['training']:.0f} s of training"
    if found:
        tta = f", TTA (image and mirror) {found['accuracy_tta']:.2%}" if "accuracy_tta" in found else ""
        raw = f", without EMA {found['accuracy_without_ema']:.2%}" if "accuracy_without_ema" in found else ""
        best = " of the best epoch" if card["recipe"]["keep"] == "best" else ""
        lines.append(f"{on} accuracy{best} {found['accuracy']:.2%}{tta}{raw}  ({found['n']:,} images, {took})")
    else:
        lines.append(f"no accuracy: the dataset has no test images and valid=0 holds none out ({took})")
    return "\n".join(lines)
