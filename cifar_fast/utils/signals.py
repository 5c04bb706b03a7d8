"""Ctrl-C and SIGTERM in a run: the step is finished and saved first."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager


class StopRequested(KeyboardInterrupt):
    "A run that was told to stop, and has saved where it is."

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@contextmanager
def defer_signals(checkpoint):
    """SIGINT and SIGTERM set `checkpoint.stop`, so that it saves after the step and raises; a second one stops at once.

    So does the first, once `checkpoint.done` says that no step is left. Python lets the main thread alone have signals:
    elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    main = os.getpid()

    def handle(signum, frame):
        if os.getpid() != main:  # a DataLoader's worker: whoever feeds on it decides
            return
        if checkpoint.stop or checkpoint.done:
            raise StopRequested(signum)
        checkpoint.stop = StopRequested(signum)
        print(f"\n{signal.Signals(signum).name}: finishing the step, or the validation, and saving; "
              f"once more stops at once", file=sys.stderr, flush=True)

    before = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
