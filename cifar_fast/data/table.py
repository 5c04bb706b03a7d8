"""A label table → class and split of each of its images. Reads the table, names, sizes and times, no pixels."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cifar_fast.data.columns import FALSE, FLAGS, TRUE, is_image, key_of, read_columns
from cifar_fast.data.errors import DataError
from cifar_fast.data.layout import alike, count, look, names, split_role
from cifar_fast.data.tree import File, Tree, missing_classes, sampled, stat_state, tree_state
from cifar_fast.utils.text import is_windows_path, printable

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "test", "valid")
WHOLE = re.compile(r"([+-]?\d+)(?:\.0+)?")


class Rows(NamedTuple):
    "What a table lists, without the rows that cannot be used."

    frame: pd.DataFrame  # name (as the table has it), path, label (text), split ("" where there is none), state
    notes: list[str]  # what was guessed
    problems: list[str]  # what was left out; on_error=refuse stops at these


def scan_table(path: Path, columns: Mapping[str, str] | None = None, seed: int = 0) -> Tree:
    """A table of files, labels and (optionally) splits as a `Tree`, in the order of its rows.

    Without a column for the split 20 % of each class are sampled by `seed` as the test set. Raises DataError.
    """
    rows = read_rows(path, columns)
    split = rows.frame["split"]
    to_train = rows.frame[(split == "train") | (split == "")]
    vocab = sorted_labels(to_train["label"].unique())
    if len(vocab) < 2:
        what = f"one class only, {vocab[0]!r}" if vocab else "no image to train on"
        raise DataError(f"{printable(path)} has {what}; two or more classes are needed")
    untrained = rows.frame[~rows.frame["label"].isin(vocab)]
    rows = left_out(rows, untrained.index, "image of a class that is not in train", untrained["label"])
    splits = as_splits(rows.frame, {name: i for i, name in enumerate(vocab)})
    seeded = "all" in splits
    if seeded:
        splits = sampled(path, splits["all"], seed)
    notes = (*rows.notes, *alike(vocab), *missing_classes(vocab, splits))
    return Tree(vocab, splits, tree_state(vocab, splits), 0, seeded, notes, tuple(rows.problems), table=True)


def as_splits(frame: pd.DataFrame, label_of: Mapping[str, int]) -> dict[str, list[File]]:
    "The files of each split, or of `all` where no row has one."
    labels = [label_of[label] for label in frame["label"].tolist()]
    files = list(map(File, frame["name"].tolist(), frame["path"].tolist(), labels, frame["state"].tolist()))
    if not (frame["split"] != "").any():
        return {"all": files}
    places = {split: (frame["split"] == split).to_numpy().nonzero()[0] for split in SPLITS}
    return {split: [files[i] for i in at] for split, at in places.items() if len(at)}


def sorted_labels(labels: Sequence[str]) -> tuple[str, ...]:
    "Numbers by value, anything else by name."
    numbers = all(WHOLE.fullmatch(label) for label in labels)
    return tuple(sorted(labels, key=(lambda label: int(WHOLE.fullmatch(label)[1])) if numbers else None))


def read_rows(path: Path, columns: Mapping[str, str] | None = None) -> Rows:
    "The usable rows of a table. Raises DataError where there are none."
    frame, chosen, unused = read_columns(path, columns or {})
    if not len(frame):
        raise DataError(f"{printable(path)} has a heading and no rows; add a row for each image")
    renamed = ", ".join(f"{role} from {printable(name)}" for role, name in chosen.items() if name != role)
    notes = [f"columns of {printable(path.name)}: {renamed}"] if renamed else []
    if unused:
        notes.append(f"not used: the column{'s' if len(unused) > 1 else ''} {names(unused)}")
    rows = with_splits(Rows(frame.rename(columns={"file": "name"}), notes, []), path, chosen.get("split"))
    rows = left_out(rows, rows.frame.index[rows.frame["name"] == ""], "row without a file")
    empty = rows.frame[rows.frame["label"] == ""]
    rows = left_out(rows, empty.index, "row without a label", empty["name"])
    if not len(rows.frame):
        raise DataError(f"{printable(path)} has no row to use: {'; '.join(rows.problems)}; give every image its file "
                        "and its class")
    rows.frame["label"] = clean_labels(rows.frame["label"])
    rows = with_files(rows, path)
    return without_duplicates(rows)


def left_out(rows: Rows, index, one: str, examples: Sequence[str] = (), where: str = "") -> Rows:
    "The rows without those at `index`, which become a problem that is counted and named."
    if not len(index):
        return rows
    word, _, rest = one.partition(" ")
    what = f"{len(index):,} {one if len(index) == 1 else f'{word}s {rest}'}"
    named = f" ({names(list(dict.fromkeys(examples)))})" if len(examples) else ""
    return Rows(rows.frame.drop(index), rows.notes, [*rows.problems, f"left out{where}: {what}{named}"])


def clean_labels(labels: pd.Series) -> pd.Series:
    "As class names: NFC, printable, whole numbers without a fraction where all labels are such."
    known = labels.unique()
    numbers = all(WHOLE.fullmatch(label) for label in known) and any("." in label for label in known)
    cleaned = {label: WHOLE.fullmatch(label)[1] if numbers else unicodedata.normalize("NFC", printable(label))
               for label in known}
    return labels.map(cleaned)


def with_splits(rows: Rows, path: Path, column: str | None) -> Rows:
    "The same with `split` as train, valid, test, or empty where the table has no such column."
    frame = rows.frame
    if column is None:
        return Rows(frame.assign(split=""), rows.notes, rows.problems)
    values = list(frame["split"].unique())
    roles, guess = roles_of(column, values)
    if not roles:
        raise DataError(f"{printable(path)}: the values of its column {printable(column)}, {names(values)}, name no "
                        "split (train, valid, test); correct them, or leave it unused: data.split=none")
    notes = [*rows.notes, guess] if guess else rows.notes
    unknown = frame[~frame["split"].isin(list(roles))]
    frame = frame.assign(split=frame["split"].map(roles))
    examples = unknown["split"].replace("", "empty").drop_duplicates().tolist()
    return left_out(Rows(frame, notes, rows.problems), unknown.index, "row of no known split", examples)


def roles_of(column: str, values: Sequence[str]) -> tuple[dict[str, str], str]:
    "Value of the split column → split, of those that name one; and a note where that was a guess."
    key = key_of(column)
    if key in FLAGS and set(map(str.lower, values)) <= TRUE | FALSE:
        yes, no = FLAGS[key]
        return {value: yes if value.lower() in TRUE else no for value in values}, ""
    folds = {value: int(WHOLE.fullmatch(value)[1]) for value in values if WHOLE.fullmatch(value)}
    named = {value: role for value in values if (role := split_role(value))}
    if "fold" in key and folds and named:
        return named | dict.fromkeys(folds, "train"), f"the rows of {count(len(folds), 'fold')} are trained on"
    if "fold" in key and len(set(folds.values())) > 1:
        least = min(folds.values())
        return ({value: "test" if fold == least else "train" for value, fold in folds.items()},
                f"fold {least} of {len(set(folds.values()))} is the test set, the others are trained on")
    return named, ""


def with_files(rows: Rows, table: Path) -> Rows:
    "The same with the path of every file and its state, without those that are not there."
    import numpy as np
    import pandas as pd

    frame, folder, endings = rows.frame, str(table.parent), {}
    codes, unique = pd.factorize(frame["name"])
    found = np.array([find_file(folder, name, endings) for name in unique.tolist()], dtype=object).reshape(-1, 2)
    paths, states = found[codes, 0], found[codes, 1]
    gone = frame[states == ""]
    elsewhere = gone["name"].map(is_windows_path).astype(bool)
    if len(gone) == len(frame):
        first = gone["name"].iloc[0]
        why = "that is a path of Windows, which means nothing here; write paths relative to the table" \
            if is_windows_path(first) else f"names are relative to the table{below_hint(table, first)}"
        raise DataError(f"none of the {len(frame):,} files that {printable(table)} lists is there, {printable(first)} "
                        f"for example: {why}")
    rows = Rows(frame.assign(path=paths, state=states), rows.notes, rows.problems)
    rows = left_out(rows, gone.index[elsewhere], "row with a path of Windows, which must be relative to the table",
                    gone["name"][elsewhere])
    return left_out(rows, gone.index[~elsewhere], "file not found", gone["name"][~elsewhere])


def find_file(folder: str, name: str, endings: dict[str, dict[str, list[str]]]) -> tuple[str, str]:
    "(path, state) of a name in a table; the state is empty where there is no such file."
    path = os.path.normpath(os.path.join(folder, os.path.expanduser(name)))
    if state := stat_state(path):
        return path, state
    if "\\" in name:  # written on Windows
        return find_file(folder, name.replace("\\", "/"), endings)
    if not is_image(name):  # an id, without the ending of its file
        parent, stem = os.path.split(path)
        if parent not in endings:
            endings[parent] = {}
            for entry in look(Path(parent)).images if os.path.isdir(parent) else ():
                endings[parent].setdefault(os.path.splitext(entry.name)[0], []).append(entry.path)
        if len(same := endings[parent].get(stem, ())) == 1:
            return same[0], stat_state(same[0])
    return path, ""


def below_hint(table: Path, name: str) -> str:
    "Where a file lies that the table names without its folder."
    folders = [below for below in look(table.parent).folders if find_file(str(table.parent / below), name, {})[1]]
    return f"; it is in {folders[0]}/: write {folders[0]}/{name}, or move the table there" if folders else ""


def without_duplicates(rows: Rows) -> Rows:
    "The same with every file once. One with two labels is left out, one in two splits is left out of train."
    frame = rows.frame
    twice = frame[frame.duplicated("path", keep=False)]
    if not len(twice):
        return rows
    labels = twice.drop_duplicates(["path", "label"])
    labels = labels[labels.duplicated("path", keep=False)]
    first = labels[labels["path"].isin(labels["path"].unique()[:4])].groupby("path", sort=False)
    examples = [f"{names(list(group['name'].iloc[:1]))}: {names(list(group['label']))}" for _, group in first]
    examples += map(str, range(labels["path"].nunique() - len(examples)))  # these are only counted
    rows = left_out(rows, twice.index[twice["path"].isin(labels["path"])], "row of files with two labels", examples)
    twice = rows.frame[rows.frame.duplicated("path", keep=False)]
    rank = twice["split"].map({"": 0, "train": 0, "valid": 1, "test": 2}).astype(int)
    # What is measured stays: an image that is also trained on would tell nothing.
    weaker = twice[rank < rank.groupby(twice["path"]).transform("max")]
    rows = left_out(rows, weaker.index, "row of files that are in another split too", weaker["name"])
    again = rows.frame.index[rows.frame.duplicated("path")]
    notes = [*rows.notes, f"{count(len(again), 'row')} listed twice, used once"] if len(again) else rows.notes
    return Rows(rows.frame.drop(again), notes, rows.problems)
