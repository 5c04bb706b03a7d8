"""DataLoaders whose batches follow from (seed, epoch, batch) alone, with any number of workers and after a resume.

Where several processes train together, each has its slice of every batch, and draws of its own.
"""

import multiprocessing
import signal
from collections.abc import Sequence

import numpy as np
import torch
from fastai.data.core import TfmdDL
from fastcore.basics import chunked

from cifar_fast.data.balance import balanced_sample
from cifar_fast.data.transforms import AlbumentationsTransform, Items
from cifar_fast.data.vectorized import vectorized
from cifar_fast.utils.cores import CORES
from cifar_fast.utils.ranks import here
from cifar_fast.utils.seeds import derive

ON_DEVICE = 2**30
"Most bytes of images that are kept on a GPU, a third of a million of 32×32; CIFAR-10 has 184 million bytes."


class SeededDL(TfmdDL):
    """A `TfmdDL` whose order and augmentation follow from (seed, epoch, batch) alone.

    The epoch counts up with every pass; `set_epoch` says which one comes next (the Learner does, see callbacks).
    With `labels` (N,), those of its items, a pass is a sample of N in which every class is equally frequent. A shuffled
    batch has all its items `views` times, one view of all after the other; `bs` counts the items.
    """

    labels = None  # also of a Learner that was exported before there were any
    views = 1  # likewise
    rank, ranks = 0, 1  # of the processes that share each batch

    def __init__(self, dataset, *args, seed=0, labels=None, views=1, **kwargs):
        super().__init__(dataset, *args, **kwargs)
        self.seed, self.labels, self.views, self.next_epoch, self.epoch = seed, labels, views, 0, 0
        self.next_skipped = self.skipped = 0  # batches skipped at the start of the next pass, and of this one

    @property
    def items(self) -> list:
        "For fastai's Interpretation, which looks up several items at once and would take an array for a single item."
        return list(self.dataset.items)

    def set_epoch(self, epoch: int) -> None:
        self.next_epoch = epoch

    def skip_batches(self, count: int) -> None:
        "Skip the first `count` batches of the next pass; the others are the same as in a full pass."
        self.next_skipped = count

    def shard(self, rank: int, ranks: int) -> None:
        """Give only this process's slice of each batch from now on; `bs` and `len` are still those of the whole ones.

        The slices differ by one image at most. In training one without images, of a last batch with fewer of them than
        processes, is the batch's first image: it has no weight (see `share`), but every process must take the step.
        """
        self.rank, self.ranks = rank, ranks

    def whole(self):
        "The same, of all images, for one process alone."
        return self.new() if self.ranks > 1 else self

    def share(self, batch: int) -> tuple[int, int]:
        "(images of this process, images in all) of a batch."
        images = min(self.bs, self.n - batch * self.bs)
        return len(range(images)[slice_of(images, self.rank, self.ranks)]), images

    @property
    def place(self) -> tuple[int, ...]:
        "What goes into the seeds of a process besides epoch and batch: nothing where there is only one."
        return (self.rank,) if self.ranks > 1 else ()

    def new(self, dataset=None, cls=None, **kwargs):
        labels = self.labels if dataset is None else None  # another dataset has other labels
        return super().new(dataset, cls, **{"seed": self.seed, "labels": labels, "views": self.views, **kwargs})

    def before_iter(self):
        super().before_iter()
        self.epoch, self.next_epoch = self.next_epoch, self.next_epoch + 1
        self.skipped, self.next_skipped = self.next_skipped, 0

    def get_idxs(self):
        return super().get_idxs()[self.skipped * self.bs:]

    def shuffle_fn(self, idxs):
        rng = np.random.default_rng(derive(self.seed, self.epoch))
        if self.labels is None:
            return rng.permutation(idxs).tolist()
        return np.asarray(idxs)[balanced_sample(self.labels, rng)].tolist()

    def create_batches(self, samps):
        # Worker `offs` of `num_workers` is handed every num_workers-th batch.
        for k, rows in enumerate(chunked(samps, self.bs, self.drop_last)):
            own = rows[slice_of(len(rows), self.rank, self.ranks)] or (rows[:1] if self.shuffle else [])
            if not own:
                continue
            batch = self.skipped + k * self.num_workers + self.offs
            for aug in self.augmentations:
                aug.seed(derive(self.seed, self.epoch, batch, *((2, *self.place) if self.place else ())))
            yield self.do_batch([self.do_item(row) for row in (own * self.views if self.shuffle else own)])

    @property
    def augmentations(self) -> list[AlbumentationsTransform]:
        return [t for t in self.after_item.fs if isinstance(t, AlbumentationsTransform)]

    def wif(self):
        """In a worker, at its start: the first SIGTERM is ignored, the second ends it.

        A SIGTERM to the whole process group must not keep the run from finishing its step.
        """
        signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def slice_of(images: int, rank: int, ranks: int) -> slice:
    "The images of a batch that one of `ranks` processes has; the first one has any where there are any."
    return slice(-(-images * rank // ranks), -(-images * (rank + 1) // ranks))


class BatchDL(SeededDL):
    """A `SeededDL` that transforms the items of a batch together, as fastai's `TabDataLoader` does.

    Its type and item transforms get `Items` and `ImageBatch`, so each is dispatched once a batch, not once an image.
    """

    def do_item(self, s):
        return self.dataset.items[s or 0]

    def create_batch(self, items):
        items = Items(items, self.image_device)
        return self.after_item(tuple(tl.tfms(items) for tl in self.dataset.tls))

    def retain(self, res, b):
        return res  # keeps its type; fastai would cast it to the type of an item

    @property
    def image_device(self) -> torch.device | None:
        "The GPU, if batches are assembled and augmented on it; None if in memory."
        gpu = self.device is not None and torch.device(self.device).type != "cpu"
        fits = gpu and self.dataset.tls[0].tfms[0].nbytes <= ON_DEVICE
        alone = not self.fake_l.num_workers  # self.num_workers is 1 where there are no workers
        split = self.after_item.split_idx
        return self.device if fits and alone and all(a.runs_on_any_device(split) for a in self.augmentations) else None


def choose_workers(workers: int | None, device: torch.device, augment: Sequence, nbytes: int) -> int:
    """Worker processes for augmentation where `workers` is None, else `workers`.

    0 without CUDA (the cores are needed for the steps), where the batches are made on the GPU, and where processes
    cannot be forked (each would import torch and fastai in every epoch). Else, for other transforms or `nbytes` of
    images that do not fit on the GPU, one for each core of this process, up to 8: the processes that train together on
    a machine share out its cores.
    """
    if workers is not None:
        return workers
    on_gpu = nbytes <= ON_DEVICE and (not augment or vectorized(augment))
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if device.type != "cuda" or on_gpu or method != "fork":
        return 0
    return min(max(1, CORES // here().local_count), 8)
