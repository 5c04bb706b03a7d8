"""Albumentations inside a fastai DataBlock, on single images and on whole batches."""

import mmap
import os

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations asks the package index at import otherwise

import albumentations
import numpy as np
import torch
from fastai.data.transforms import Categorize, ToTensor
from fastai.torch_core import TensorBase, TensorCategory, TensorImage
from fasttransform import Transform
from PIL import Image

from cifar_fast.data.depth import Ranges
from cifar_fast.data.images import read_image
from cifar_fast.data.vectorized import vectorized


class ImageArray(np.ndarray):
    "A decoded image: (H, W, 3) uint8, RGB."


class ImageBatch(TensorBase):
    "Decoded images: (N, H, W, 3) uint8, RGB, on any device."


class Items(list):
    "The dataset's items of one batch, which a transform reads together."

    def __init__(
        self,
        items,  # row numbers, or files and images, of one kind
        device: torch.device | None = None,  # holds the images and assembles the batch; None: memory
    ):
        super().__init__(items)
        self.device = device


@ToTensor
def encodes(self, o: ImageArray):
    "HWC uint8 → CHW uint8 `TensorImage`, without a copy."
    return TensorImage(torch.from_numpy(np.ascontiguousarray(o)).permute(2, 0, 1))


@ToTensor
def encodes(self, o: ImageBatch):
    "NHWC uint8 → NCHW uint8 `TensorImage`, without a copy: what torch calls channels_last."
    return TensorImage(o.as_subclass(torch.Tensor).permute(0, 3, 1, 2))


class ReadImage(Transform):
    "The first step of an image: a row number looks into the decoded arrays, anything else is read by PIL."

    # A DataBlock infers from this which inputs `learn.predict` may be given.
    input_types = (int, np.integer, str, os.PathLike, bytes, np.ndarray, object)

    on_device = None  # a device, and all images there
    size, resize_mode, ranges = 32, "crop", None  # of files and images that are read; those of pickles that say nothing

    def __init__(
        self,
        *parts,  # uint8 arrays (N, H, W, 3), indexed as if concatenated
        size: int = 32,
        resize_mode: str = "crop",
        ranges: Ranges | None = None,  # of files and images of more than eight bits, see `depth`
    ):
        super().__init__()
        self.parts, self.size, self.resize_mode, self.ranges = parts, size, resize_mode, ranges

    def encodes(self, o):
        return np.array(self.image(o)).view(ImageArray)  # a copy: the arrays are mapped read-only

    def encodes(self, items: Items):
        if not isinstance(items[0], int | np.integer):
            return ImageBatch(torch.from_numpy(np.stack([self.image(o) for o in items])))
        if items.device is not None:
            return ImageBatch(self.images_on(items.device)[torch.tensor(items, device=items.device)])
        first = self.parts[0]
        if isinstance(first, np.memmap):
            first = np.asarray(first)  # without np.memmap's own indexing, which costs more than the copy
        images = np.asarray(first[items]) if max(items) < len(first) else np.stack([self.image(i) for i in items])
        return ImageBatch(torch.from_numpy(images))

    def image(self, o) -> np.ndarray:
        "One image, (H, W, 3) uint8. Raises ImageError where it cannot be read."
        if not isinstance(o, int | np.integer):
            image = Image.fromarray(o) if isinstance(o, np.ndarray) else o
            return read_image(image, self.size, self.resize_mode, self.ranges)
        for part in self.parts:
            if o < len(part):
                return part[o]
            o -= len(part)
        raise IndexError("row number beyond the last image")

    def __getstate__(self):
        # Workers that are not forked get this pickled: the name of a mapped file, not its 150 MB.
        # (A slice of one keeps its file's offset, so it goes as it is.)
        named = [(p.filename, p.dtype.str, p.shape, p.offset)
                 if isinstance(p, np.memmap) and isinstance(p.base, mmap.mmap) else p for p in self.parts]
        return {**self.__dict__, "parts": named, "on_device": None}

    def __setstate__(self, state):
        # The file may be gone, as for an exported Learner on another machine: other images can still be read.
        parts = [np.memmap(p[0], p[1], "r", p[3], p[2]) if isinstance(p, tuple) else p for p in state["parts"]
                 if not isinstance(p, tuple) or os.path.isfile(p[0])]
        self.__dict__.update(state, parts=tuple(parts))

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def images_on(self, device: torch.device) -> torch.Tensor:
        "All images, (N, H, W, 3) uint8: copied to `device` once, for as long as this object lives."
        if self.on_device is None or self.on_device[0] != device:
            self.on_device = device, torch.cat([torch.from_numpy(np.array(part)).to(device) for part in self.parts])
        return self.on_device[1]


class ReadLabel(Categorize):
    "The first step of a label: row number → class number, decoded to the class name."

    def __init__(self, vocab, *parts):  # class names; int64 arrays (N,), indexed as if concatenated
        super().__init__(vocab=list(vocab), sort=False)
        self.labels = np.concatenate(parts) if parts else np.empty(0, np.int64)

    def encodes(self, i):
        return TensorCategory(int(self.labels[i]))

    def encodes(self, items: Items):
        return TensorCategory(torch.from_numpy(self.labels[items]))


class AlbumentationsTransform(Transform):
    "One object with a training and a validation pipeline: fastai keeps only the last item transform of a class."

    order = 2  # before ToTensor (5): Albumentations works on uint8 HWC arrays

    def __init__(self,
        train=(), # Albumentations transforms, in this order, for the training split
        valid=(), # the same for every other split
    ):
        super().__init__()
        # `is_check_shapes` compares images with masks, of which there are none.
        self.train, self.valid = (albumentations.Compose(list(t), is_check_shapes=False) for t in (train, valid))
        self.vectorized, self.rng = vectorized(train), np.random.default_rng()
        self.pipeline = self.train

    def __call__(self, x, split_idx=None, **kwargs):
        self.pipeline = self.valid if split_idx else self.train
        return super().__call__(x, split_idx=split_idx, **kwargs)

    def encodes(self, image: ImageArray | Image.Image):
        return self.augment(np.array(image)).view(ImageArray)

    def encodes(self, images: ImageBatch):
        if not self.pipeline.transforms:
            return images
        if self.is_vectorized(self.pipeline):
            return ImageBatch(self.vectorized(images.as_subclass(torch.Tensor), self.rng))
        return ImageBatch(torch.from_numpy(np.stack([self.augment(image) for image in images.numpy()])))

    def augment(self, image: np.ndarray) -> np.ndarray:
        return self.pipeline(image=image)["image"] if self.pipeline.transforms else image

    def is_vectorized(self, pipeline) -> bool:
        return pipeline is self.train and self.vectorized is not None

    def runs_on_any_device(self, split_idx: int | None) -> bool:
        "Whether the pipeline of this split needs no Albumentations: a vectorized or an empty one."
        pipeline = self.valid if split_idx else self.train
        return not pipeline.transforms or self.is_vectorized(pipeline)

    def seed(self, seed: int) -> None:
        "Seed the training pipeline; Albumentations ignores the global seeds."
        self.rng = np.random.default_rng(seed)
        self.train.set_random_seed(seed)
