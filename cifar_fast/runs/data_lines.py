"""What a run says of its data before it trains: the images of each class, and what was guessed or is missing."""

from __future__ import annotations

import textwrap

import numpy as np

from cifar_fast.data.balance import unequal
from cifar_fast.data.layout import names
from cifar_fast.recipe import Recipe
from cifar_fast.training.prepare import Run
from cifar_fast.utils.text import printable

ALL = 20  # classes that are listed one by one
WIDTH = 80  # of these lines, which end up in logs
ENDS = 3  # of more classes: this many from each end
SIGNS = {"digits", "mnist", "mnist5k", "emnist_digits", "kmnist", "qmnist", "usps", "semeion", "svhn"}
"Named datasets of digits and characters, in which left and right differ; of others the data says it itself."


def held_text(run: Run) -> str:
    "What a run validates on."
    r, valid = run.recipe, len(run.learn.dls.valid_ds)
    if r.validate_on == "test":
        return "validates and selects on TEST, as published"
    if run.source.valid:
        return f"{valid:,} of its own validation split"
    return f"{valid:,} of train held out" if valid else "nothing held out"


def data_lines(run: Run) -> list[str]:
    "The classes with their counts, one line; then a line for each thing that a user should know of the data."
    source, dls = run.source, run.learn.dls
    held = np.array([int(i) for i in dls.valid_ds.items], dtype=int)
    rows = {"train": np.array([int(i) for i in dls.train_ds.items], dtype=int)}
    if run.recipe.validate_on != "test" and len(held):
        rows["validation" if source.valid else "held out"] = held
    if source.test:
        rows["test"] = source.rows("test")
    labels = source.labels
    counts = {split: np.bincount(labels[at], minlength=len(source.vocab)) for split, at in rows.items()}
    lines = [counts_line(source.vocab, counts)]
    if "held out" in counts and len(lacking := np.flatnonzero(counts["held out"] == 0)):
        lines.append(f"too few images of {names([source.vocab[i] for i in lacking])} to hold one out: validation says "
                     f"nothing of {'it' if len(lacking) == 1 else 'them'}")
    if unequal(np.bincount(run.valid_labels)) and (by := selecting(run.recipe)):
        lines.append(f"the classes validated on are unequal: {' and '.join(by)} {'go' if len(by) > 1 else 'goes'} by "
                     f"balanced accuracy, the mean of the classes")
    if not source.test and not len(held):
        lines.append("there will be no accuracy: no image is for test or validation; valid=0.1 holds a tenth out")
    if run.recipe.valid and source.valid:
        lines.append(f"valid={run.recipe.valid:g} has no effect: the data has a validation split of its own")
    if source.name in SIGNS and run.recipe.tta:
        lines.append(f"left and right differ in {source.name}: TTA accuracy and flips do not suit it; recipe digits "
                     f"has neither")
    return [textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
            for line in (*lines, *source.notes)]


def selecting(r: Recipe) -> list[str]:
    "The settings that look at validation accuracy."
    return [*(["keep=best"] if r.keep == "best" else []), *([f"patience={r.patience}"] if r.patience else []),
            *([f"target={r.target:g}"] if r.target else [])]


def counts_line(vocab: tuple[str, ...], counts: dict[str, np.ndarray]) -> str:
    "`2 classes (train/test): cat 24/6, dog 24/6`; of many classes both ends, and the smallest and largest."
    each = [f"{printable(name)} {'/'.join(f'{of[i]:,}' for of in counts.values())}" for i, name in enumerate(vocab)]
    text = f"{len(vocab):,} classes ({'/'.join(counts)}): "
    if len(vocab) <= ALL:
        return text + ", ".join(each)
    train = counts["train"]
    return f"{text}{', '.join(each[:ENDS])} … {', '.join(each[-ENDS:])}; {train.min():,} to {train.max():,} to train on"
