"""From a `Source` to fastai `DataLoaders` through a `DataBlock`."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence

import numpy as np
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import IntToFloatTensor, Normalize, ToTensor
from fastai.torch_core import TensorCategory, TensorImage
from fastcore.basics import chunked
from fasttransform import Transform

from cifar_fast.data.batched import batched
from cifar_fast.data.sources import Source
from cifar_fast.data.transforms import AlbumentationsTransform, ReadImage
from cifar_fast.utils.seeds import derive

ON_DEVICE = 2**30
"Bytes of images, a third of a million of them, that a GPU is asked to hold; CIFAR-10 has 184 million bytes."


class SeededDL(TfmdDL):
    """A `TfmdDL` whose order and augmentation follow from (seed, epoch, batch) alone.

    The epoch counts up with every pass; `set_epoch` says which one comes next (the Learner does, see callbacks).
    """

    def __init__(self, dataset, *args, seed=0, **kwargs):
        super().__init__(dataset, *args, **kwargs)
        self.seed, self.next_epoch, self.epoch = seed, 0, 0
        self.next_skipped = self.skipped = 0  # batches left out at the start of the next pass, and of this one

    @property
    def items(self) -> list:
        "What fastai's Interpretation looks items up in, several at once: an array it would take for a single item."
        return list(self.dataset.items)

    def set_epoch(self, epoch: int) -> None:
        self.next_epoch = epoch

    def skip_batches(self, count: int) -> None:
        "The next pass leaves its first `count` batches out; the others are what they are in a whole pass."
        self.next_skipped = count

    def new(self, dataset=None, cls=None, **kwargs):
        return super().new(dataset, cls, **{"seed": self.seed, **kwargs})

    def before_iter(self):
        super().before_iter()
        self.epoch, self.next_epoch = self.next_epoch, self.next_epoch + 1
        self.skipped, self.next_skipped = self.next_skipped, 0

    def get_idxs(self):
        return super().get_idxs()[self.skipped * self.bs:]

    def shuffle_fn(self, idxs):
        return np.random.default_rng(derive(self.seed, self.epoch)).permutation(idxs).tolist()

    def create_batches(self, samps):
        augs = [t for t in self.after_item.fs if isinstance(t, AlbumentationsTransform)]
        # Worker `offs` of `num_workers` is handed every num_workers-th batch.
        for k, rows in enumerate(chunked(samps, self.bs, self.drop_last)):
            for aug in augs:
                aug.seed(derive(self.seed, self.epoch, self.skipped + k * self.num_workers + self.offs))
            yield self.direct_batch(rows) if self.is_direct else self.do_batch([self.do_item(i) for i in rows])

    def wif(self):
        """In a worker, at its start. A SIGTERM that is sent to a whole group of processes leaves it the first time, so
        that the run can finish its step; the second one, or the run's own, ends it.
        """
        signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))

    @property
    def is_direct(self) -> bool:
        "Whether items are row numbers that go through this module's steps alone, so that a batch can be taken at once."
        tls = getattr(self.dataset, "tls", ())
        return (len(tls) == 2 and [type(f) for f in tls[0].tfms.fs] == [ReadImage]
                and [type(f) for f in self.after_item.fs] == [AlbumentationsTransform, ToTensor]
                and not self.before_batch.fs
                and len(tls[0].items) > 0 and isinstance(tls[0].items[0], int | np.integer))

    def keeps_on_device(self, nbytes: int) -> bool:
        "Whether so many bytes of images lie on a GPU for good, which then makes its batches itself."
        alone = not self.fake_l.num_workers  # self.num_workers is 1 where there is none
        return alone and self.device is not None and torch.device(self.device).type != "cpu" and nbytes <= ON_DEVICE

    def direct_batch(self, rows):
        """What `do_item` and `do_batch` give, without fastai's dispatch and tensors for each single item.

        A pipeline that has a batched twin draws other numbers of the same distribution.

        Through these 3,400 images a second passed, where crop and flip alone make 18,000 (one AVX2 core, one run).
        """
        images, labels = self.dataset.tls
        aug = next(t for t in self.after_item.fs if isinstance(t, AlbumentationsTransform))
        items, reader, split = [images.items[i] for i in rows], images.tfms.fs[0], images.tfms.split_idx
        if self.keeps_on_device(reader.nbytes) and aug.can_gather(split):
            images = aug.gather(reader.on(self.device), items, split)
        else:
            images = torch.from_numpy(aug.apply_all(reader.take(items), split))
        # (B, H, W, 3) seen as (B, 3, H, W) is what torch calls channels_last: no copy.
        x = TensorImage(images.permute(0, 3, 1, 2))
        return x, TensorCategory(torch.from_numpy(labels.tfms.fs[0].take(items)))


class Labels(Transform):
    "Row number → class name, over label arrays that follow one another."

    def __init__(self, vocab, *parts):
        super().__init__()
        self.names, self.labels = list(vocab), np.concatenate(parts) if parts else None

    def encodes(self, i):
        return self.names[self.labels[i]]  # not `vocab`, which `dls.vocab` would then hold twice

    def take(self, rows) -> np.ndarray:
        "Class numbers (N,) int64 of row numbers."
        return np.asarray(self.labels[rows], np.int64)


def data_block(
    source: Source,  # decoded images and labels
    train: np.ndarray,  # row numbers to train on
    valid: np.ndarray,  # row numbers to validate on, may be empty; those past the train part are test images
    augment=(),  # Albumentations for training
    stats=None,  # ((mean, …), (std, …)) in 0..1, None for the source's
) -> DataBlock:
    "A DataBlock over row numbers: decoded once, augmented per item, made float and normalised per batch."
    parts = [source.train] + ([source.test] if source.test else [])
    mean, std = stats or (source.mean, source.std)
    return DataBlock(
        blocks=(TransformBlock(batch_tfms=IntToFloatTensor, dl_type=SeededDL),
                CategoryBlock(vocab=list(source.vocab), sort=False)),
        getters=[ReadImage(*[p.images for p in parts]), Labels(source.vocab, *[p.labels for p in parts])],
        splitter=_given(train, valid),
        item_tfms=AlbumentationsTransform(train=augment),
        batch_tfms=Normalize.from_stats(mean, std, cuda=False),
    )


class _Given:
    "A splitter that returns the row numbers it was made with."

    def __init__(self, train, valid):
        self.train, self.valid = train, valid

    def __call__(self, items):
        return self.train, self.valid


def _given(train, valid):
    return _Given([int(i) for i in train], [int(i) for i in valid])


def split_rows(source: Source, valid: float, validate_on: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (train, valid): a seeded, stratified hold-out of train, nothing, or the test set as `published`.

    `valid` below 1 is a share, from 1 up a count. Raises ValueError when nothing would be left to train on.
    """
    n = len(source.train)
    if validate_on == "test":
        if not source.test:
            raise ValueError(f"validate_on=test validates on the test set, and {source.name} has none; "
                             f"use validate_on=held_out valid=0.1")
        return np.arange(n), np.arange(n, n + len(source.test))
    count = int(round(n * valid if valid < 1 else valid))
    if valid == 0:
        return np.arange(n), np.arange(0)
    if not len(source.vocab) <= count <= n - len(source.vocab):
        raise ValueError(f"valid={valid:g} holds {count} of {n} images out; at least one of each of the "
                         f"{len(source.vocab)} classes must be on both sides")
    from sklearn.model_selection import train_test_split

    try:
        train, held = train_test_split(np.arange(n), test_size=count, stratify=source.train.labels, random_state=seed)
    except ValueError as e:
        raise ValueError(f"valid={valid:g} cannot be held out of {source.name}: {e}; use valid=0") from None
    return np.sort(train), np.sort(held)


def choose_workers(workers: int | None, device: torch.device, augment: Sequence, nbytes: int) -> int:
    """Processes that augment where `workers` is None, else `workers`.

    None on a CPU, whose cores are worth more in the steps, and none where a GPU makes the batches itself; beside other
    GPUs, and for `nbytes` of images that are too many to lie there, one a core, up to 8. Processes that cannot be
    forked would import torch and fastai in each epoch.
    """
    if workers is not None:
        return workers
    gathered = nbytes <= ON_DEVICE and (not augment or batched(augment))
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if device.type != "cuda" or gathered or method != "fork":
        return 0
    return min(len(os.sched_getaffinity(0)), 8)


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
) -> DataLoaders:
    "DataLoaders of uint8 → float, normalised (bs, 3, 32, 32) batches; the test set is no part of `dls.train`."
    train, held = split_rows(source, valid, validate_on, seed)
    if drop_last and bs > len(train):
        raise ValueError(f"bs={bs} is more than the {len(train)} training images and drop_last=true leaves nothing "
                         f"to train on; use bs={max(1, len(train) // 8)}, or drop_last=false")
    block = data_block(source, train, held, augment, stats)
    items = np.arange(len(source.train) + (len(source.test) if source.test else 0))
    # Images to validate on are as they are: nothing for processes to do.
    return block.dataloaders(items, bs=bs, val_bs=500, drop_last=drop_last, seed=seed, device=device,
                             dl_kwargs=[{"num_workers": workers}, {"num_workers": 0}])


def test_dl(dls: DataLoaders, source: Source, workers: int = 0):
    "The test set of `source` as a DataLoader with the valid pipeline of `dls`, labels included."
    if not source.test:
        raise ValueError(f"{source.name} has no test set")
    rows = np.arange(len(source.train), len(source.train) + len(source.test))
    return dls.test_dl(rows, with_labels=True, num_workers=workers)


test_dl.__test__ = False  # the name is fastai's; pytest must not collect it
