"""Named datasets: `data=digits`. A dataset is registered where it is read, with `@register_source`.

The modules that register import nothing heavy at the top, so that `recipes` lists their datasets at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_fast.data.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from cifar_fast.data.depth import Ranges

MODULES = ("cifar10", "package_sets", "torchvision_sets")  # of this package: they register datasets


@dataclass(frozen=True)
class Request:
    "How the images of a dataset are wanted."

    size: int  # side of every image, pixels
    resize_mode: str  # one of images.RESIZE_MODES
    shelf: Path  # the folder of the cache, where a download may be kept
    ranges: Ranges | None = None  # of images of more than eight bits, see `depth`

    def fit(self, image: np.ndarray) -> np.ndarray:
        "(H, W, 3) uint8 → (size, size, 3) uint8."
        from PIL import Image

        from cifar_fast.data.images import read_image

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
    about: str = ""  # images of train (+ valid) + test; how large the download is, or that there is none
    folder: str = ""  # its download in the cache, relative to the shelf
    valid: bool = False  # whether it has a validation split of its own
    files: bool = False  # whether its images are files of their own


DATASETS: dict[str, Dataset] = {}


def register_source(name: str, origin: str, *, size: int, classes: int, **more: str | bool):
    "A decorator: the function fills a folder of the cache with the dataset (see fill.py)."
    def register(fill: Callable[[Path, Request], dict]) -> Callable[[Path, Request], dict]:
        DATASETS[name] = Dataset(name, origin, size, classes, fill, **more)
        return fill
    return register


def named_datasets() -> dict[str, Dataset]:
    "All that are registered, by name."
    for module in MODULES:
        import_module(f"cifar_fast.data.{module}")
    return DATASETS


def in_cache(dataset: Dataset, shelf: Path) -> str:
    "What the cache holds of a dataset: 'decoded at 32 and 64 pixels', 'downloaded', or ''."
    tree = "|[0-9a-f]{12}" if dataset.name == "cifar10" else ""  # of CIFAR_FAST_DATA; else a folder called so
    decoded = re.compile(rf"{dataset.name}-(?:official{tree})(?:-(\d+)-\w+)?@.*")
    names = [entry.name for entry in shelf.iterdir()] if shelf.is_dir() else []
    sizes = sorted({int(match[1] or 32) for match in map(decoded.fullmatch, names) if match})
    if sizes:
        return f"decoded at {' and '.join(map(str, sizes))} pixels"
    return "downloaded" if dataset.folder and (shelf / dataset.folder).exists() else ""


def needed(name: str, module: str, package: str):
    "The module that brings the dataset `name`. Raises DataError where its package is not installed."
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(f"data={name} needs the package {package} ({error}); pip install '{package}'") from error
