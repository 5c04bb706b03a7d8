"""A teacher's logits cached on disk, for several students that see the same images: `distill.cache=yes`.

The images of a batch follow from (seed, epoch, batch), so a second student with the same data, settings (`SEEN`) and
machine sees the same images as the first, and the teacher need not run again. A file holds the logits in float16, one
record a batch, with a checksum of the student's images and of the logits: a record of other images is recomputed and
replaced. Logits are rounded to float16 with and without a cache, so that the student's weights are the same bit for
bit (on a CPU). With `distill.repeat=20` epoch 21 has the images of epoch 1 again, and the teacher runs only where
their size or mixing has changed since, as with `mix.until` below 1.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch

from cifar_fast.data.cache import cache_folder
from cifar_fast.recipe import describe
from cifar_fast.utils.device import device_name
from cifar_fast.utils.environment import cpu_name
from cifar_fast.utils.ranks import here
from cifar_fast.utils.text import printable

SEEN = ("epochs", "seed", "bs", "drop_last", "augment", "mix", "resize", "resize_mode", "validate_on", "valid",
        "balance", "views", "distill_repeat")
"Settings that decide which images a batch of the student has, besides its data and their normalisation."

SUM = 4  # bytes of a checksum


class LogitsCache:
    "The teacher's logits for the batches of one run, by (epoch, batch)."

    def __init__(self, path: Path, batches: int, bs: int, classes: int):
        self.path, self.batches, self.classes = path, batches, classes
        self.record = SUM + 2 * bs * classes  # bytes
        self.file = None

    def size(self, epochs: int) -> int:
        "Bytes of the whole file."
        return epochs * self.batches * self.record

    def open(self) -> LogitsCache:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
            self.file = self.path.open("r+b", buffering=0)
        except OSError as e:
            self.give_up(e)
        return self

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def give_up(self, e: OSError) -> None:
        warnings.warn(f"the teacher's logits are not cached in {printable(self.path)} ({e.strerror or e}): make room, "
                      f"or set CIFAR_FAST_CACHE to a folder that can be written", stacklevel=3)
        self.close()

    def get(self, epoch: int, batch: int, x: torch.Tensor, teacher) -> torch.Tensor:
        "The teacher's logits (B, C) for images (B, 3, H, W), from the cache or computed now."
        if self.file is None:
            return teacher(x)
        seen, place = fingerprint(x), (epoch * self.batches + batch) * self.record
        try:
            self.file.seek(place)
            content = self.file.read(SUM + 2 * len(x) * self.classes)
            if content[:SUM] == checksum(content[SUM:], seen):
                logits = np.frombuffer(content, np.float16, offset=SUM).reshape(len(x), self.classes)
                return torch.from_numpy(logits.astype(np.float32)).to(x.device)
            logits = teacher(x)
            content = logits.half().cpu().numpy().tobytes()
            self.file.seek(place)
            self.file.write(checksum(content, seen) + content)
        except OSError as e:  # a full disk
            self.give_up(e)
            return teacher(x)
        return logits


def fingerprint(x: torch.Tensor) -> int:
    "Of images (B, C, H, W), by a sixteenth of their pixels, in any memory format."
    return zlib.crc32(x[..., ::4, ::4].float().cpu().contiguous().numpy())


def checksum(content: bytes, seen: int) -> bytes:
    return zlib.crc32(content, seen).to_bytes(SUM, "little")


def logits_cache_of(run) -> LogitsCache:
    "The cache of a prepared run, not opened yet."
    r, dl = run.recipe, run.learn.dls.train
    ranks = here()  # of several processes, each has its own part of a batch
    what = {"teacher": r.distill_sha256, "procs": ranks.count, "data": run.source.fingerprint, "size": run.source.size,
            "stats": [[float(v) for v in values] for values in run.stats],
            "machine": [device_name(run.device), cpu_name(), run.precision, torch.get_num_threads(), torch.__version__],
            **{key: describe(getattr(r, key)) for key in SEEN}}
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    file = cache_folder() / "teachers" / (f"{key}-{ranks.rank}" if ranks.several else key)
    return LogitsCache(file, len(dl), -(-r.bs // ranks.count) * r.views, len(run.source.vocab))
