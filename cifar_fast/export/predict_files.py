"""Image files → probabilities: several threads decode while the model predicts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import numpy as np

from cifar_fast.data.errors import ImageError
from cifar_fast.export.base import BasePredictor
from cifar_fast.utils.cores import DECODERS

BATCH_BYTES = 2**25
"Of decoded images in a batch."


def predict_files(model: BasePredictor, paths: list[Path], tta: bool = False, bs: int = 250, progress: bool = False):
    "Yields (path, probabilities (C,) or None, reason or None) for each path in order."
    bs = images_at_once(model, bs)
    with progress_bar(len(paths), progress) as bar:
        for found in predict_decoded(model, read_ahead(model, paths, 2 * bs), tta, bs):
            yield found
            if bar:
                bar.update()


def images_at_once(model: BasePredictor, most: int = 250) -> int:
    return max(1, min(most, BATCH_BYTES // (3 * model.size**2)))


def predict_decoded(model: BasePredictor, decoded: Iterator[tuple[Path, np.ndarray | None, str | None]],
                    tta: bool = False, bs: int = 250):
    "Yields (path, probabilities (C,) or None, reason or None) for each (path, image or None, reason or None) in order."
    while part := list(islice(decoded, bs)):
        images = [image for _, image, _ in part if image is not None]
        probs = iter(model.predict(np.stack(images), tta) if images else ())
        for path, image, reason in part:
            yield path, None if image is None else next(probs), reason


def read_ahead(model: BasePredictor, paths: Iterable[Path],
               ahead: int) -> Iterator[tuple[Path, np.ndarray | None, str | None]]:
    "(path, image or None, reason or None) in order; up to `ahead` images are decoded before they are asked for."
    def read(path: Path) -> tuple[Path, np.ndarray | None, str | None]:
        try:
            return path, model.read(path), None
        except ImageError as e:
            return path, None, str(e)

    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(DECODERS)
    try:
        for path in paths:
            waiting.append(pool.submit(read, path))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # after Ctrl-C too: what is not decoded yet is not needed
        pool.shutdown(cancel_futures=True)


def progress_bar(total: int, shown: bool):
    if not shown:
        return nullcontext()
    from tqdm import tqdm

    return tqdm(total=total, unit="image", leave=False)
