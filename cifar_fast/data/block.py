"""From a `Source` to fastai `DataLoaders` through a `DataBlock`."""

from functools import partial

import numpy as np
from fastai.data.block import DataBlock, TransformBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import IntToFloatTensor, Normalize

from cifar_fast.data.errors import DataError
from cifar_fast.data.images import batch_size
from cifar_fast.data.loaders import BatchDL
from cifar_fast.data.sources import Source
from cifar_fast.data.transforms import AlbumentationsTransform, ReadImage, ReadLabel


def data_block(
    source: Source,  # decoded images and labels
    train: np.ndarray,  # row numbers to train on
    valid: np.ndarray,  # row numbers to validate on, may be empty; those past the train part are test images
    augment=(),  # Albumentations for training
    stats=None,  # ((mean, …), (std, …)) in 0..1, None for the source's
) -> DataBlock:
    "A DataBlock over row numbers: decoded once, augmented as uint8, made float and normalised once a batch."
    parts = list(source.splits.values())
    mean, std = stats or (source.mean, source.std)
    return DataBlock(
        blocks=(TransformBlock(batch_tfms=IntToFloatTensor, dl_type=BatchDL), TransformBlock()),
        getters=[ReadImage(*[p.images for p in parts], size=source.size, resize_mode=source.resize_mode,
                           ranges=source.ranges),
                 ReadLabel(source.vocab, *[p.labels for p in parts])],
        splitter=partial(fixed_split, train=[int(i) for i in train], valid=[int(i) for i in valid]),
        item_tfms=AlbumentationsTransform(train=augment),
        batch_tfms=Normalize.from_stats(mean, std, cuda=False),
    )


def fixed_split(items, train: list[int], valid: list[int]) -> tuple[list[int], list[int]]:
    "A splitter that returns the row numbers it is given; fastai's IndexSplitter cannot be pickled."
    return train, valid


def split_rows(source: Source, valid: float, validate_on: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (train, valid). Validated on: the test set, the data's own validation split, a hold-out, or nothing.

    The hold-out of train is seeded and stratified; `valid` below 1 is a fraction, from 1 up a count. Every class of two
    or more images is on both sides. Raises DataError when that is not possible.
    """
    n = len(source.train)
    if validate_on == "test":
        if not source.test:
            raise DataError(f"validate_on=test needs a test set, and {source.name} has none; "
                            f"use validate_on=held_out valid=0.1")
        return np.arange(n), source.rows("test")
    if source.valid:
        return np.arange(n), source.rows("valid")
    if valid == 0:
        return np.arange(n), np.arange(0)
    count = int(round(n * valid if valid < 1 else valid))
    sizes = np.bincount(source.train.labels, minlength=len(source.vocab))
    least, most = max(1, (sizes > 1).sum()), n - (sizes > 0).sum()
    if not least <= count <= most:
        raise DataError(f"valid={valid:g} holds out {count} of {n} images; training and validation both need at least "
                        f"one image of each of the {len(source.vocab)} classes; choose another number, or valid=0")
    held = hold_out(source.train.labels, sizes, count, seed)
    return np.flatnonzero(~held), np.flatnonzero(held)


def hold_out(
    labels: np.ndarray,  # (N,) int
    sizes: np.ndarray,  # (C,) int, images of each class
    count: int,  # how many to hold out
    seed: int,
) -> np.ndarray:  # (N,) bool
    "Stratified; of a class with two or more images at least one, of a class with one image none."
    held = np.zeros(len(labels), dtype=bool)
    if sizes[sizes > 0].min() > 1:
        from sklearn.model_selection import train_test_split

        held[train_test_split(np.arange(len(labels)), test_size=count, stratify=labels, random_state=seed)[1]] = True
        inside = np.bincount(labels[held], minlength=len(sizes))
        if ((inside > 0) & (inside < sizes))[sizes > 0].all():
            return held
        held[:] = False
    share = sizes * (count / len(labels))
    least, most = (sizes > 1).astype(int), np.maximum(sizes - 1, 0)
    quota = np.clip(np.floor(share).astype(int), least, most)
    while quota.sum() != count:  # the class that is furthest from its share comes first
        step = 1 if quota.sum() < count else -1
        movable = quota < most if step > 0 else quota > least
        quota[np.where(movable, (share - quota) * step, -np.inf).argmax()] += step
    for label in np.flatnonzero(quota):
        places = np.flatnonzero(labels == label)
        held[np.random.default_rng([seed, label]).permutation(places)[:quota[label]]] = True
    return held


def make_dls(
    source: Source,
    *,
    augment=(),
    stats=None,
    valid: float = 0,
    validate_on: str = "held_out",
    bs: int = 128,
    drop_last: bool = True,
    workers: int = 0,
    seed: int = 0,
    device=None,
    balanced: bool = False,  # sample every class equally often in training
    views: int = 1,  # of each training image in its batch
) -> DataLoaders:
    "DataLoaders of uint8 → float, normalised (bs, 3, size, size) batches; the test set is no part of `dls.train`."
    train, held = split_rows(source, valid, validate_on, seed)
    if drop_last and bs > len(train):
        raise DataError(f"bs={bs} is more than the {len(train)} training images, and drop_last=true drops the only "
                        f"batch; use bs={max(1, len(train) // 8)}, or drop_last=false")
    block = data_block(source, train, held, augment, stats)
    items = np.arange(sum(len(part) for part in source.splits.values()))
    labels = source.train.labels[train] if balanced else None
    # Images to validate on are not augmented: no work for processes.
    return block.dataloaders(items, bs=bs, val_bs=batch_size(source.size, 500), drop_last=drop_last, seed=seed,
                             device=device,
                             dl_kwargs=[{"num_workers": workers, "labels": labels, "views": views}, {"num_workers": 0}])


def test_dl(dls: DataLoaders, source: Source, workers: int = 0):
    "The test set of `source` as a DataLoader with the valid pipeline of `dls`, labels included."
    if not source.test:
        raise DataError(f"{source.name} has no test set")
    return dls.test_dl(source.rows("test"), with_labels=True, num_workers=workers)


test_dl.__test__ = False  # the name is fastai's; pytest must not collect it


def image_reader(dls: DataLoaders) -> ReadImage:
    "What reads the images of `dls`: it knows their size and how they are brought to it."
    return dls.train.dataset.tls[0].tfms[0]
