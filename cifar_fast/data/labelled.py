"""Labelled images to measure a trained model on: all of a folder or a table, its classes found by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cifar_fast.data.errors import DataError
from cifar_fast.data.layout import class_name, find_layout, look, names, passed_over, similar
from cifar_fast.data.table import as_splits, read_rows
from cifar_fast.data.tree import File, Tree, in_order, sampled, scan_class
from cifar_fast.utils.text import printable


class Labelled(NamedTuple):
    splits: dict[str, list[File]]  # train, test and valid, those that there are; or "all"
    shown: dict[str, list[str]]  # likewise, how messages name each file
    unknown: dict[str, int]  # images of each class that the model does not know, which are left out
    missing: list[str]  # classes of the model without images
    notes: list[str]


def scan_labelled(
    root: Path,  # a folder or a label table
    vocab: Sequence[str],  # the classes of the model; a label is an index into it
    columns: Mapping[str, str] | None = None,  # of a table
    seed: int | None = None,  # where this is what the model was trained on: samples its test set as the run did
) -> Labelled:
    "Raises DataError where nothing can be measured."
    label_of = {class_name(name): i for i, name in enumerate(vocab)}
    splits, unknown, notes, table = (of_table if root.is_file() else of_tree)(root, label_of, columns)
    found = {file.label for files in splits.values() for file in files}
    if not found:
        theirs = [name for name, images in unknown.items() if images]
        raise DataError(f"{root} has no image of a class that the model knows: it has "
                        f"{names(theirs, 20) if theirs else 'no image at all'}, the model knows "
                        f"{names(list(vocab), 20)}{below_hint(root, label_of)}")
    if len(found) == 1 and len(vocab) > 1:
        notes = [f"all images are of one class, {names([vocab[min(found)]])}: this is how often that class is "
                 f"recognised, and says nothing of images that are taken for it", *notes]
    if "all" in splits and seed is not None:
        splits = sampled(root, splits["all"], seed)
    tree = Tree(tuple(vocab), splits, "", 0, False, table=table)
    shown = {split: [tree.shown(file) for file in files] for split, files in splits.items()}
    return Labelled(splits, shown, unknown, [name for i, name in enumerate(vocab) if i not in found],
                    [*unknown_text(unknown, label_of), *notes])


def below_hint(root: Path, known: Mapping[str, int]) -> str:
    "Where the class folders are, if a single folder holds them, or if `root` is one of them."
    if root.is_file():
        return ""
    inner = look(root).folders
    if len(inner) == 1 and any(class_name(name) in known for name in look(root / inner[0]).folders):
        return f"; did you mean data={printable(root / inner[0])}?"
    return f"; did you mean data={printable(root.parent)}?" if class_name(root.name) in known else ""


def of_tree(root: Path, label_of: Mapping[str, int], columns) -> tuple[dict, dict, list[str], bool]:
    try:
        layout = find_layout(root, to_train=False)
    except DataError as e:
        raise DataError(f"{e}{below_hint(root, label_of)}") from None
    splits, unknown = {}, Counter()
    for split, part in layout.parts.items():
        files = []
        for folder in part.classes:
            name = class_name(folder)
            images, _ = scan_class(part.folder / folder, label_of.get(name, -1), layout.passed)
            if name in label_of:
                files += images
            else:
                unknown[name] += len(images)
        if files:
            splits[split] = in_order(files)  # as the run had them: the seed samples places in this order
    return splits, unknown, [*layout.notes, *passed_over(layout.passed)], False


def of_table(root: Path, label_of: Mapping[str, int], columns) -> tuple[dict, dict, list[str], bool]:
    rows = read_rows(root, columns)
    known = rows.frame["label"].isin(list(label_of))
    unknown = Counter(rows.frame["label"][~known].tolist())
    return as_splits(rows.frame[known], label_of), unknown, [*rows.notes, *rows.problems], True


def unknown_text(unknown: Mapping[str, int], known: Sequence[str]) -> list[str]:
    if not unknown:
        return []
    near = {name: like for name in unknown if (like := similar(name, known))}
    each = [f"{name}: {images:,}" + (f", did you mean {near[name]}?" if name in near else "")
            for name, images in unknown.items()]
    return [f"not measured: {sum(unknown.values()):,} images of classes that the model does not know ({names(each)})"]
