"""A process that makes shards: tasks come on stdin, replies go to stdout, both pickled.

No multiprocessing: a child of it would run the parent's main module again, and share the terminal's Ctrl-C.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from cifar_fast.utils.errors import CifarFastError

READING, DONE = 0, 8
"Where the shared state says which image of a task is being read (-1: none), and how many are done; 8 bytes each."


@dataclass
class Task:
    index: int
    sources: list[str | Path]
    target: Path
    skip: dict[int, str] = field(default_factory=dict)  # reasons of images that are not to be read


class State:
    "Two numbers that the parent can read at any moment, after the worker's death too."

    def __init__(self, path: Path):
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 16)

    def __getitem__(self, at: int) -> int:
        return struct.unpack_from("q", self.memory, at)[0]

    def __setitem__(self, at: int, value: int) -> None:
        struct.pack_into("q", self.memory, at, value)


def main() -> None:
    out, inbox = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
    os.dup2(2, 1)  # libraries may print

    def send(reply) -> None:
        pickle.dump(reply, out)
        out.flush()

    with suppress(OSError):  # where memory runs out, this process ends and not its parent, which replaces it
        Path("/proc/self/oom_score_adj").write_text("500")
    job, state = pickle.load(inbox)
    tasks: SimpleQueue[Task] = SimpleQueue()
    Thread(target=receive, args=(inbox, tasks), daemon=True).start()
    try:
        from cifar_fast.export.bulk.job import open_model

        warnings.simplefilter("ignore")  # the parent has opened the same model and said it
        model, state = open_model(job), State(state)
        send("ready")
        while True:
            task = tasks.get()
            make_shard(task, model, job, state)
            send(task.index)
    except (CifarFastError, OSError) as e:
        send(e)
    except BaseException:
        send(RuntimeError(f"in a worker process:\n{traceback.format_exc()}"))
    os._exit(1)  # Python's own exit would fail at stdin, at which the other thread waits


def receive(inbox, tasks: SimpleQueue) -> None:
    "Ends the process with its parent, whatever it is doing."
    try:
        while True:
            tasks.put(pickle.load(inbox))
    except (EOFError, OSError):
        os._exit(0)


def make_shard(task: Task, model, job, state: State) -> None:
    from cifar_fast.export.bulk.table import table_of, write_shard
    from cifar_fast.export.predict_files import images_at_once, predict_decoded

    state[DONE] = 0
    rows = predict_decoded(model, decoded(task, model, state), job.tta, images_at_once(model))
    write_shard(table_of(rows, model, job.topk), task.target)


def decoded(task: Task, model, state: State) -> Iterator[tuple]:
    "One after the other, so that it is known which image ends the process."
    from cifar_fast.data.errors import ImageError
    from cifar_fast.export.bulk.sources import read_source

    for i, source in enumerate(task.sources):
        if reason := task.skip.get(i):
            yield source, None, reason
            continue
        state[READING] = i
        try:
            found = source, read_source(model, source), None
        except ImageError as e:
            found = source, None, str(e)
        state[READING] = -1
        state[DONE] = i + 1
        yield found


if __name__ == "__main__":
    main()
