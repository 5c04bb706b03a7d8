"""Worker processes, watched: one that dies is replaced, and what it did is done again."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from pathlib import Path

from cifar_fast.export.bulk.job import BulkError, Job
from cifar_fast.export.bulk.worker import DONE, READING, State, Task
from cifar_fast.utils.cores import PLACE

TRIES = 3
"Worker processes that an image may end before it is left out, and those that may end with no image to blame."
PACKAGE_PARENT = str(Path(__file__).parents[3])
BEAT = 0.5  # seconds between two looks at how far the workers are


class Worker:
    "A process and the task that it was given."

    def __init__(self, job: Job, folder: Path, place: int, cwd: str | None = None):
        fd, path = tempfile.mkstemp(dir=folder)
        os.write(fd, b"\0" * 16)
        os.close(fd)
        self.state, self.task, self.ready, self.place = State(Path(path)), None, False, place
        self.state[READING] = -1
        # -P: no module in the current folder is taken for one of ours; one thread each, since there is one a core.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cifar_fast.export.bulk.worker"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, start_new_session=True, cwd=cwd, env={
                "OMP_NUM_THREADS": "1", **os.environ, PLACE: str(place),
                "PYTHONPATH": os.pathsep.join(filter(None, [PACKAGE_PARENT,
                                                            os.environ.get("PYTHONPATH")]))})
        self.send((job, Path(path)))

    def send(self, message) -> None:
        try:
            pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()
        except BrokenPipeError:  # it has died, which `receive` reports
            pass

    def give(self, task: Task) -> None:
        self.task, self.state[DONE] = task, 0
        self.send(task)

    def receive(self):
        "Its reply; None where it has died."
        try:
            return pickle.load(self.process.stdout)
        except (EOFError, pickle.UnpicklingError):
            return None

    def end(self) -> int:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        return self.process.wait()


class Pool:
    "Workers for a job; a context that ends them."

    def __init__(self, job: Job, procs: int, cwd: str | None = None):  # cwd: of the workers, if not this one's
        self.job, self.procs, self.cwd, self.workers = job, procs, cwd, []

    def __enter__(self):
        if os.name == "nt":  # there the pipes of workers cannot be waited for
            raise BulkError("predict --out runs on Linux and macOS; on Windows use it in WSL, or leave out --out")
        self.folder = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *exc):
        for worker in self.workers:
            worker.end()
        self.folder.cleanup()

    def run(
        self,
        tasks: Iterable[Task],  # taken one by one, as workers are free
        beat: Callable[[int], object] = lambda images: None,  # told now and then how many images unfinished tasks did
    ) -> Iterator[int]:
        "Yields the index of each task whose file is there. Raises what a worker raised, or BulkError."
        tasks, again = iter(tasks), deque()
        waiting = next(tasks, None)
        blamed, unexplained = Counter(), Counter()  # deaths by (task, image), and by task or None at the start
        while True:
            for place in sorted(set(range(self.procs)) - {worker.place for worker in self.workers}):
                self.workers.append(Worker(self.job, Path(self.folder.name), place, self.cwd))
            for worker in self.workers:
                if worker.ready and worker.task is None:
                    if again:
                        worker.give(again.popleft())
                    elif waiting:
                        worker.give(waiting)
                        waiting = next(tasks, None)
            if not (waiting or again or any(w.task for w in self.workers)):
                return
            replied = wait([w.process.stdout for w in self.workers], BEAT)
            beat(sum(w.state[DONE] for w in self.workers if w.task))
            for worker in [w for w in self.workers if w.process.stdout in replied]:
                reply = worker.receive()
                if isinstance(reply, Exception):
                    raise reply
                if reply == "ready":
                    worker.ready = True
                elif reply is not None:
                    worker.task = None
                    yield reply
                else:
                    self.workers.remove(worker)
                    explain(worker, blamed, unexplained)
                    if worker.task:
                        again.append(worker.task)


def explain(worker: Worker, blamed: Counter, unexplained: Counter) -> None:
    "Count a death; an image that caused too many is skipped from now on. Raises BulkError where none did."
    code, image, task = worker.end(), worker.state[READING], worker.task
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if task and image >= 0:
        blamed[task.index, image] += 1
        if blamed[task.index, image] >= TRIES:
            task.skip[image] = f"reading it ended the process {TRIES} times ({how})"
        return
    where = task.index if task else None
    unexplained[where] += 1
    if unexplained[where] >= TRIES:
        raise BulkError(f"{TRIES} worker processes ended with {how} {'in the model' if task else 'as they began'}; "
                        f"where memory is short, take fewer: --procs 1. The same command goes on with what is done")
