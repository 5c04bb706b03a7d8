"""Named datasets: `data=digits`. A dataset is registered where it is read, with `@register_source`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cifar_fast.data.depth import Ranges
from cifar_fast.data.images import read_image


@dataclass(frozen=True)
class Request:
    "How the images of a dataset are wanted."

    size: int  # side of every image, pixels
    resize_mode: str  # one of images.RESIZE_MODES
    shelf: Path  # the folder of the cache, where a download may be kept
    ranges: Ranges | None = None  # of images of more than eight bits, see `depth`

    def fit(self, image: np.ndarray) -> np.ndarray:
        "(H, W, 3) uint8 → (size, size, 3) uint8."
        square = (self.size, self.size, 3)
        return image if image.shape == square else read_image(Image.fromarray(image), self.size, self.resize_mode)


@dataclass(frozen=True)
class Dataset:
    "A dataset that has a name."

    name: str
    origin: str  # where it comes from: an address or a package
    size: int  # side of its images unless another is asked for, pixels
    classes: int
    fill: Callable[[Path, Request], dict]  # writes the splits into a folder; returns vocab and splits
    version: str = ""  # changes with its contents


DATASETS: dict[str, Dataset] = {}


def register_source(name: str, origin: str, *, size: int, classes: int, version: str = ""):
    "A decorator: the function fills a folder of the cache with the dataset (see fill.py)."
    def register(fill: Callable[[Path, Request], dict]) -> Callable[[Path, Request], dict]:
        DATASETS[name] = Dataset(name, origin, size, classes, fill, version)
        return fill
    return register
