"""predict --out FILE: list, make the shards that are missing, join them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cifar_fast.export.bulk.folder import ShardFolder
from cifar_fast.export.bulk.job import BulkError, Job
from cifar_fast.export.bulk.pool import Pool
from cifar_fast.export.bulk.table import join, unreadable
from cifar_fast.export.bulk.worker import Task
from cifar_fast.utils.log import log_progress, quiet

SHARD = 1000  # images; what a worker that is stopped has to do again
LINE = 30  # seconds between two lines of progress where there is no terminal
Make = Callable[[Job, Iterable[Task], int, Callable[[int], object]], Iterator[int]]
"An engine: job, tasks, processes, and whom it tells how many images unfinished tasks have done."


@dataclass(frozen=True)
class Summary:
    images: int
    unreadable: int
    seconds: float  # of this run alone
    predicted: int  # in this run


def in_processes(job: Job, tasks: Iterable[Task], procs: int, beat: Callable[[int], object]) -> Iterator[int]:
    with Pool(job, procs) as pool:
        yield from pool.run(tasks, beat)


def predict_bulk(
    job: Job,
    sources: Iterable[str | Path],  # listed anew each time
    out: Path,  # .parquet or .csv
    procs: int,
    shard: int = SHARD,
    restart: bool = False,
    make: Make = in_processes,
) -> Summary:
    "Predict images to a table. Raises BulkError, and OSError where something cannot be written."
    begun = time.monotonic()
    with ShardFolder(out) as folder:
        folder.begin(job, sources, shard, restart)
        shards, done, images = folder.shards, folder.done(), folder.images
        if not images:
            return Summary(0, 0, 0.0, 0)
        before = folder.count(done)
        if done:
            log_progress(f"predict: {before:,} of {images:,} images are done; going on")
        missing = [i for i in range(len(shards)) if i not in done]
        tasks = (Task(i, folder.sources(i), shards[i]) for i in missing)
        try:
            with progress(images, before) as show:
                for index in make(job, tasks, min(procs, max(1, len(missing))), lambda n: show(folder.count(done) + n)):
                    done.add(index)
                    show(folder.count(done))
            if left := len(shards) - len(folder.done()):
                raise BulkError(f"{left:,} of {len(shards):,} shards are missing; the same command makes them")
            join(shards, out)
        except BaseException:
            kept = folder.count(folder.done())
            log_progress(f"\npredict: {kept:,} of {images:,} images are done and kept in {folder.path}; the same "
                         f"command goes on there, --restart begins anew")
            raise
        bad = unreadable(shards)
        folder.remove()
        return Summary(images, bad, time.monotonic() - begun, images - before)


@contextmanager
def progress(total: int, before: int):
    "A function that is told how many images are done: a bar on a terminal, else a line now and then."
    if sys.stderr.isatty() and not quiet():
        from tqdm import tqdm

        with tqdm(total=total, initial=before, unit="image", leave=False) as bar:
            yield lambda done: bar.update(done - bar.n)
        return
    begun = printed = time.monotonic()

    def show(done: int) -> None:
        nonlocal printed
        if (now := time.monotonic()) - printed >= LINE and done > before:
            printed, rate = now, (done - before) / (now - begun)
            log_progress(f"predict: {done:,} of {total:,} images, {rate:,.0f} a second, "
                         f"{timedelta(seconds=round((total - done) / rate))} left")

    yield show
