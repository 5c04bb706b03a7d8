"""Worker processes: started, replaced when they die, told to stop; they stop by themselves when their parent dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cifar_fast.utils.cores import CORES, PLACE
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.log import log_progress
from cifar_fast.utils.signals import StopRequested, handling, raise_on_signals

LOOK = 0.5  # seconds between two looks at the workers
MOST_IN_VAIN = 20
"Workers that may die one after the other without a run that finished in between."

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
GIVEN_UP = 3
"Exit code of a worker that met an error that others would meet too: a full disk, images that are gone."


class WorkerError(CifarFastError):
    "Workers that end without their work done; the message names the log."


def threads_of(jobs: int) -> int:
    "Threads of each of `jobs` processes, which share the cores; OMP_NUM_THREADS of the user comes first."
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else max(1, CORES // jobs)


def run_pool(
    work: Callable[..., int],  # importable; run in every worker, which ends with its exit code
    args: tuple[Any, ...],
    jobs: int,
    look: Callable[[], int],  # called now and then; how many runs have finished, by which progress is seen
) -> None:
    """Run `jobs` workers until all have ended; one that dies is replaced.

    A signal is passed on and raised once all have stopped. Raises WorkerError where they cannot go on.
    """
    context, threads = process_context(), threads_of(jobs)
    arguments = (work, args, threads, os.getcwd())
    received, in_vain, finished = [], 0, look()  # before there is a worker: it may raise
    workers = {start(context, arguments, place): place for place in range(jobs)}

    def forward(signum, frame):
        received.append(signum)
        for worker in workers:
            if worker.is_alive():
                os.kill(worker.pid, signum)

    try:
        with handling(forward):
            while workers:
                time.sleep(LOOK)
                for worker in [w for w in workers if not w.is_alive()]:
                    place, code = workers.pop(worker), worker.exitcode
                    if code == 0 or received or code in STOPPED:
                        if code in STOPPED and not received:
                            received.append(code - 128)  # somebody stopped it alone: stop
                            forward(code - 128, None)
                        continue
                    if code == GIVEN_UP:
                        raise WorkerError("a worker stopped at an error that the others would meet too; see above")
                    in_vain += 1
                    if in_vain > MOST_IN_VAIN:
                        raise WorkerError(f"{in_vain} workers died in a row, the last with {died(code)}; see logs/")
                    log_progress(f"a worker died ({died(code)}); another one continues its run")
                    workers[start(context, arguments, place)] = place  # the GPU of the one that died is free
                if (now := look()) > finished:
                    finished, in_vain = now, 0
    finally:
        for worker in workers:
            if worker.is_alive():
                os.kill(worker.pid, signal.SIGTERM)
        for worker in workers:
            worker.join()
    if received:
        raise StopRequested(received[0])


def process_context():
    "A forkserver that has imported everything, so that a worker starts at once; where there is none, new processes."
    if "forkserver" in multiprocessing.get_all_start_methods() and sys.platform == "linux":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["cifar_fast.sweep.preload"])
        return context
    return multiprocessing.get_context("spawn")


def start(context, arguments: tuple, place: int):
    worker = context.Process(target=main, args=(*arguments, place))
    worker.start()
    return worker


def died(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def main(work: Callable[..., int], args: tuple[Any, ...], threads: int, cwd: str, place: int) -> None:
    "A worker process; several GPUs are shared out by `place`."
    os.chdir(cwd)
    if hasattr(os, "setsid"):  # not on Windows
        os.setsid()  # Ctrl-C of a terminal goes to the parent alone, which passes it on once
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the forkserver ignores it
    import torch

    os.environ[PLACE] = str(place)
    torch.set_num_threads(threads)
    threading.Thread(target=stop_with_parent, daemon=True).start()
    try:
        with raise_on_signals():
            code = work(*args)
    except StopRequested as e:
        code = e.exit_code
    except CifarFastError as e:
        print(f"cifar_fast: {e}", file=sys.stderr, flush=True)
        code = GIVEN_UP
    sys.exit(code)


def stop_with_parent() -> None:
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def output_to(path: Path):
    "What this process and its libraries print in the block goes to the end of a file."
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with open(path, "a") as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, fd)
                os.close(copy)
