"""Which images a run was trained on: a digest of each is saved beside it, by which they are known under any name.

Wherever images were decoded from files; other datasets are known by their fingerprint. Known are images of equal
pixels in the size of the run: not copies that were compressed or scaled anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cifar_fast.data.arrays import Arrays
from cifar_fast.export.card_format import ExportError
from cifar_fast.utils.files import atomic_write

NAME = "trained.npy"
MOST_BYTES = 2**30  # 134 million images


def save_trained(folder: Path, train: Arrays, rows: Iterable[int], before: np.ndarray | None = None) -> None:
    """Digests of the images at these rows and those `before`, (N,) uint64 in ascending order.

    `before`: what the weights that the run started from were trained on. None is saved where the images were no files.
    """
    if train.digests is None:
        return
    own = train.digests[np.array([int(row) for row in rows], dtype=np.int64)]
    with atomic_write(folder / NAME) as tmp, open(tmp, "wb") as file:
        np.save(file, np.unique(own if before is None else np.concatenate([own, before])))


def read_trained(folder: Path) -> np.ndarray | None:
    "What `save_trained` saved beside a run; None where there is nothing. Raises ExportError."
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        digests = np.load(path, allow_pickle=False)
        if digests.dtype != np.uint64 or digests.ndim != 1:
            raise ValueError(f"it holds {digests.dtype}{digests.shape}")
    except (OSError, ValueError, EOFError) as e:
        raise ExportError(f"{path} does not list the images of a run ({e}); restore it, or remove it: then nobody "
                          f"knows which images the run was trained on") from None
    return digests
