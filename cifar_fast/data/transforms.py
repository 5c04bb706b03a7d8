"""Albumentations inside a fastai DataBlock."""

import mmap
import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the package index at import otherwise

import albumentations
import numpy as np
import torch
from fastai.data.transforms import ToTensor
from fastai.torch_core import TensorImage
from fasttransform import ItemTransform, Transform
from PIL import Image

from cifar_fast.data.batched import batched
from cifar_fast.data.images import read_image


class ImageArray(np.ndarray):
    "A decoded image: (32, 32, 3) uint8, RGB."


@ToTensor
def encodes(self, o: ImageArray):
    "HWC uint8 → CHW uint8 `TensorImage`, without a copy."
    return TensorImage(torch.from_numpy(np.ascontiguousarray(o)).permute(2, 0, 1))


class ReadImage(Transform):
    "The first step of an image: a row number looks into the decoded arrays, anything else is read by PIL."

    # A DataBlock infers from this which inputs `learn.predict` may be given.
    input_types = (int, np.integer, str, os.PathLike, bytes, np.ndarray, object)

    kept = None  # on a device: its name, and all images

    def __init__(self, *parts):  # uint8 arrays (N, 32, 32, 3), as if they were one after the other
        super().__init__()
        self.parts = parts

    def encodes(self, o):
        if isinstance(o, int | np.integer):
            image = self.row(o)
        else:
            image = read_image(Image.fromarray(o) if isinstance(o, np.ndarray) else o)
        return np.array(image).view(ImageArray)  # a copy: the arrays are mapped read-only

    def row(self, i: int) -> np.ndarray:
        for part in self.parts:
            if i < len(part):
                return part[i]
            i -= len(part)
        raise IndexError("row number beyond the last image")

    def __getstate__(self):
        # Workers that are not forked get this pickled: the name of a mapped file, not its 150 MB.
        # (A slice of one keeps its file's offset, so it goes as it is.)
        named = [(p.filename, p.dtype.str, p.shape, p.offset)
                 if isinstance(p, np.memmap) and isinstance(p.base, mmap.mmap) else p for p in self.parts]
        return {**self.__dict__, "parts": named, "kept": None}

    def __setstate__(self, state):
        # Where the file is gone, as for a Learner that was exported elsewhere, images can still be read.
        parts = [np.memmap(p[0], p[1], "r", p[3], p[2]) if isinstance(p, tuple) else p for p in state["parts"]
                 if not isinstance(p, tuple) or os.path.isfile(p[0])]
        self.__dict__.update(state, parts=tuple(parts))

    def take(self, rows) -> np.ndarray:
        "The images of row numbers as one array (N, 32, 32, 3) uint8, a copy."
        first = np.asarray(self.parts[0])  # without np.memmap's own indexing, which costs more than the copy
        return first[rows] if max(rows) < len(first) else np.stack([self.row(i) for i in rows])

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def on(self, device: torch.device) -> torch.Tensor:
        "All images on `device`, (N, 32, 32, 3) uint8: brought there once, for as long as this object lives."
        if self.kept is None or self.kept[0] != device:
            self.kept = device, torch.cat([torch.from_numpy(np.array(part)).to(device) for part in self.parts])
        return self.kept[1]


class AlbumentationsTransform(ItemTransform):
    "One object with a training and a validation pipeline: fastai keeps only the last item transform of a class."

    split_idx = None  # chosen below, per split
    order = 2  # before ToTensor (5): Albumentations works on uint8 HWC arrays

    def __init__(self,
        train=(), # Albumentations transforms, in this order, for the training split
        valid=(), # the same for every other split
    ):
        super().__init__()
        # `is_check_shapes` compares images with masks, of which there are none.
        self.train, self.valid = (albumentations.Compose(list(t), is_check_shapes=False) for t in (train, valid))
        self.twin, self.rng = batched(train), np.random.default_rng()

    def __call__(self, x, split_idx=None, **kwargs):
        # The pipelines are called directly: fastai's type dispatch would cost more than a flip does.
        image, *rest = x
        return (self.apply(np.asarray(image), split_idx).view(ImageArray), *rest)

    def apply(self, image: np.ndarray, split_idx: int | None) -> np.ndarray:
        "One image, (H, W, 3) uint8, through the pipeline of its split."
        aug = self.valid if split_idx else self.train
        return aug(image=image)["image"] if aug.transforms else image

    def apply_all(self, images: np.ndarray, split_idx: int | None) -> np.ndarray:
        "Images (N, H, W, 3) uint8 through the pipeline of their split, as one array (N, h, w, 3)."
        if self.twin and not split_idx:
            return self.twin(images, self.rng)
        return np.stack([self.apply(image, split_idx) for image in images])

    def can_gather(self, split_idx: int | None) -> bool:
        "Whether `gather` serves this split: a pipeline with a twin, or an empty one."
        return not self.valid.transforms if split_idx else bool(self.twin or not self.train.transforms)

    def gather(self, store: torch.Tensor, items: list[int], split_idx: int | None) -> torch.Tensor:
        "What `apply_all` gives for the images `items` of `store` (N, H, W, 3) uint8, made on its device."
        if self.twin and not split_idx:
            return self.twin.gather(store, items, self.rng)
        return store[torch.tensor(items, device=store.device)]

    def decode(self, x, **kwargs):
        return x

    def seed(self, seed: int) -> None:
        "Seed the training pipeline; Albumentations ignores the global seeds."
        if self.twin:
            self.rng = np.random.default_rng(seed)
        self.train.set_random_seed(seed)
