"""A dataset of torchvision → the arrays of its splits, streamed to disk."""

from pathlib import Path

import numpy as np
from PIL import Image

from cifar_fast.data.arrays import write_split
from cifar_fast.data.errors import DataError
from cifar_fast.data.fill import fill_from_tree
from cifar_fast.data.registry import Request
from cifar_fast.data.torchvision_files import DAMAGE, dataset_folder, make
from cifar_fast.data.torchvision_sets import TorchvisionSet
from cifar_fast.data.tree import File, Tree, seeded_split
from cifar_fast.utils.text import printable

SEED = 0  # of the split of a dataset that has none, which is the same for everybody


def fill_splits(name: str, spec: TorchvisionSet, folder: Path, request: Request) -> dict:
    root = dataset_folder(name, spec, request.shelf)
    parts = {part: open_dataset(name, spec, root, arguments) for part, arguments in spec.splits.items()}
    vocab = spec.vocab or class_names(parts["train"])
    fill = fill_from_arrays if hasattr(parts["train"], "data") else fill_from_files
    filled = fill(spec, vocab, parts, folder, request)
    return filled | {"notes": [*filled.get("notes", ()), *([spec.note] if spec.note else [])]}


def open_dataset(name: str, spec: TorchvisionSet, root: Path, arguments: dict):
    try:
        return make(spec, root, **arguments)
    except (OSError, RuntimeError, *DAMAGE) as error:
        raise DataError(f"{printable(root)} does not hold {name} as torchvision.datasets.{spec.cls} lays it out: "
                        f"{printable(error)}; remove it to download {name} again") from error


def class_names(dataset) -> tuple[str, ...]:
    "As torchvision has them: the first of several names, and Caltech-256's without their numbers."
    names = getattr(dataset, "classes", None) or dataset.categories
    firsts = [name if isinstance(name, str) else name[0] for name in names]
    return tuple(name[4:] if name[:3].isdigit() and name[3:4] == "." else name for name in firsts)


def fill_from_files(spec: TorchvisionSet, vocab: tuple[str, ...], parts: dict, folder: Path, request: Request) -> dict:
    files = {part: [File(Path(path).name, str(path), int(label), "") for path, label in listed(dataset)]
             for part, dataset in parts.items()}
    splits = {split: [files[part][row] for row in rows]
              for split, (part, rows) in rows_of({p: [f.label for f in fs] for p, fs in files.items()}).items()}
    return fill_from_tree(Tree(vocab=vocab, splits=splits, state="", others=0, seeded=False), folder, request)


def listed(dataset) -> list[tuple[str | Path, int]]:
    "Path and label of each image."
    if hasattr(dataset, "_samples"):  # GTSRB: its items are images that no longer know their file
        return dataset._samples
    if hasattr(dataset, "_images"):  # OxfordIIITPet, likewise
        return list(zip(dataset._images, dataset._labels, strict=True))
    items = map(dataset.__getitem__, range(len(dataset)))
    return [(getattr(image, "filename", image), label) for image, label in items]


def fill_from_arrays(spec: TorchvisionSet, vocab: tuple[str, ...], parts: dict, folder: Path, request: Request) -> dict:
    splits = rows_of({part: dataset_labels(dataset) for part, dataset in parts.items()})
    for split, (part, rows) in splits.items():
        write_split(folder, split, (item(spec, parts[part], row, request) for row in rows), request.size)
    return {"vocab": vocab, "splits": list(splits)}


def dataset_labels(dataset) -> np.ndarray:
    labels = np.asarray(dataset.targets if hasattr(dataset, "targets") else dataset.labels)
    return labels if labels.ndim == 1 else labels[:, 0]  # QMNIST's rows hold the writer and more


def item(spec: TorchvisionSet, dataset, row: int, request: Request) -> tuple[np.ndarray, int]:
    image, label = dataset[row]
    if spec.transposed:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    return request.fit(np.asarray(image.convert("RGB"))), int(label) - spec.first


def rows_of(labels: dict[str, np.ndarray | list[int]]) -> dict[str, tuple[str, np.ndarray]]:
    "Split → the part of torchvision's dataset that it is taken from, and its rows there."
    if labels.keys() != {"train"}:
        return {part: (part, np.arange(len(values))) for part, values in labels.items()}
    test = seeded_split(np.asarray(labels["train"]), SEED)
    return {"train": ("train", np.flatnonzero(~test)), "test": ("train", np.flatnonzero(test))}
