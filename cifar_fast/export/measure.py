"""Results of a fitted run: its model is measured once, and its card filled in."""

from __future__ import annotations

import hashlib
import platform
import time
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch

from cifar_fast.audit import Audit
from cifar_fast.data.block import test_dl
from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Audited, BestEpoch, Data, Machine, Metrics, Normalization, Rule, Seconds
from cifar_fast.export.metrics import scores
from cifar_fast.export.predictions import Predictions
from cifar_fast.export.predictor import probabilities
from cifar_fast.recipe import Recipe, describe
from cifar_fast.training.callbacks.history import DivergedError
from cifar_fast.training.fit import Fitted
from cifar_fast.training.parallel import BATCH_NORM
from cifar_fast.training.prepare import Run
from cifar_fast.training.state import accuracy_column, watched
from cifar_fast.utils.device import device_name
from cifar_fast.utils.environment import versions


def make_card(recipe: Recipe, run: Run, fitted: Fitted) -> tuple[Card, Predictions | None]:
    """The card of a fitted run, and its predictions; the Learner is left with the weights to save (EMA's, if any).

    The test set is evaluated here, once, with those weights (and, for comparison, with the ones without averaging).
    """
    state, frame = fitted.state, fitted.state.frame()
    split, metrics, predictions = evaluated(recipe, run, fitted.ema)
    data, learn = run.source, run.learn
    mean, std = run.stats
    last = frame.iloc[-1]
    return Card(
        arch=recipe.arch, vocab=list(data.vocab), name=recipe.name,
        normalize=Normalization(mean=[float(m) for m in mean], std=[float(s) for s in std]),
        size=data.size, resize_mode=data.resize_mode, widths=list(run.widths) if run.widths else None,
        split=split, metrics=metrics, epochs=len(frame), best_epoch=best_epoch(frame),
        last_epoch={k: None if pd.isna(v) else float(v) for k, v in last.items()},
        seconds=Seconds(training=float(frame["seconds"].sum()), epoch=float(frame["seconds"].median()),
                        total=state.seconds, to_85=seconds_to(0.85, frame)),
        audit=audited(run.audit), start=run.start, teachers=run.teachers.entries() if run.teachers else [],
        waived=dict(recipe.waive), recipe=describe(recipe), mixed=dict(state.mix_counts) or None, resumed=state.resumes,
        data=Data(name=data.name, fingerprint=data.fingerprint, train=len(learn.dls.train_ds),
                  test=len(data.test or ()), skipped=len(data.skipped), ranges=dict(data.ranges)),
        machine=Machine(device=device_name(run.device), precision=run.precision, compiled=run.compiled,
                        memory_format=state.memory_format, format_speeds=dict(state.format_speeds),
                        threads=torch.get_num_threads(), platform=platform.system(), procs=recipe.procs or 1,
                        batch_norm=BATCH_NORM[recipe.sync_bn] if (recipe.procs or 1) > 1 else ""),
        versions=versions(), commit=run.commit, date=time.strftime("%Y-%m-%d", time.gmtime()),
    ), predictions


def evaluated(recipe: Recipe, run: Run, average) -> tuple[str | None, Metrics | None, Predictions | None]:
    "(split, metrics, predictions) of the weights to save, which the Learner then holds."
    model, vocab = run.learn.model, run.source.vocab
    dl, labels, split = measured_on(run)
    own = measure(model, dl, labels, vocab, tta=False)[0] if average and split else None
    if average:
        model.load_state_dict(average.state_dict())
    metrics, probs = measure(model, dl, labels, vocab, recipe.tta) if split else (None, None)
    require_finite(model, probs)
    if not split:
        return None, None, None
    if own:
        metrics["accuracy_without_ema"] = own["accuracy"]
    items = None if split == "test" else held_out_rows(run)
    arrays, places = run.source.locate(run.source.rows("test") if items is None else items)
    files = arrays.files(places)
    predictions = Predictions(labels, probs.argmax(1), probs, tuple(vocab), which_images(run, split), split, items,
                              files)
    return split, Metrics(**metrics), predictions


def best_epoch(frame: pd.DataFrame) -> BestEpoch | None:
    """The first epoch with the best validation accuracy of the weights that are saved; None without validation.

    Where classes are unequal the best is that of balanced accuracy; `accuracy` is that epoch's own all the same.
    """
    if "valid_accuracy" not in frame:
        return None
    row = frame.loc[frame[watched(frame.columns)].idxmax()]
    return BestEpoch(epoch=int(row["epoch"]), accuracy=float(row[accuracy_column(frame.columns)]))


def audited(audit: Audit) -> Audited:
    profile = audit.profile
    return Audited(params=profile.params, macs=profile.macs, receptive_field=profile.receptive_field,
                   flash=profile.flash_bytes, ram=profile.ram_bytes,
                   verdicts=[Rule(**asdict(verdict)) for verdict in audit.verdicts])


def require_finite(model, probs: np.ndarray | None) -> None:
    "Raise DivergedError for a model with non-finite weights or predictions: it is no result, and is not saved."
    state = [v for v in model.state_dict().values() if v.is_floating_point()]
    if not all(bool(torch.isfinite(v).all()) for v in state) or (probs is not None and not np.isfinite(probs).all()):
        raise DivergedError("the trained model gives non-finite values (NaN or inf), so nothing was exported; try a "
                            "lower learning rate (lr=…), or clip=1")


def which_images(run: Run, split: str) -> str:
    "Identifies the images that a run was measured on: runs with the same value can be compared image by image."
    if split == "test":
        return f"{run.source.fingerprint}/test"
    items = held_out_rows(run).astype("<i8")
    return f"{run.source.fingerprint}/{hashlib.sha256(items.tobytes()).hexdigest()[:16]}"


def held_out_rows(run: Run) -> np.ndarray:
    "Row numbers of the held-out images, in their order."
    return np.array([int(i) for i in run.learn.dls.valid_ds.items])


def seconds_to(target: float, frame: pd.DataFrame) -> float | None:
    "Seconds of training until validation accuracy first reached `target`; None where it did not, or none was taken."
    column = accuracy_column(frame.columns)
    if column not in frame or not (reached := frame[column] >= target).any():
        return None
    return float(frame["seconds"].cumsum()[reached.idxmax()])


def measured_on(run: Run):
    """(DataLoader, labels, 'held-out' or 'test') that a finished run is measured on; (None, None, None) without either.

    A run that holds out a part of train is for tuning: it does not use the test set. Where the data has a validation
    split of its own, nothing of train is held out, and the run is measured on test.
    """
    dls, source = run.learn.dls, run.source
    if run.recipe.validate_on == "held_out" and len(dls.valid_ds) and not (source.valid and source.test):
        return dls.valid.whole(), source.labels[held_out_rows(run)], "held-out"
    if source.test:
        return test_dl(dls, source), source.test.labels, "test"
    return None, None, None


def measure(model, dl, labels, vocab, tta: bool) -> tuple[dict, np.ndarray]:
    "Scores of `model` on a DataLoader in order, with and without TTA; and the probabilities (N, C) without."
    plain, mirrored = probabilities(model, (x.as_subclass(torch.Tensor) for x, *_ in dl), tta)
    metrics = scores(plain, labels, vocab)
    if tta:
        metrics["accuracy_tta"] = float((mirrored.argmax(1) == labels).mean())
    return metrics, plain
