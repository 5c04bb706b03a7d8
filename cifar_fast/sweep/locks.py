"""Which workers of this machine are alive: each holds a lock that the system releases when its process ends."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

HOST = socket.gethostname()


@contextmanager
def worker_id(folder: Path) -> Iterator[str]:
    "HOST/UUID of a new worker, whose lock is held in the block."
    folder.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    path, pid = folder / f"{name}.lock", folder / f"{name}.pid"
    with FileLock(path):
        pid.write_text(f"{os.getpid()}\n")  # for people; nothing reads it
        yield f"{HOST}/{name}"
    pid.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def is_alive(folder: Path, worker: str) -> bool | None:
    "Whether a worker's process runs; None where this machine cannot know, as it is another's."
    host, _, name = worker.rpartition("/")
    path = folder / f"{name}.lock"
    if host != HOST or not path.exists():
        # One of ours whose lock is gone has ended by itself, between giving its trial back and this look.
        return None
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
