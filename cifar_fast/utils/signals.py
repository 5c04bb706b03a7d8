"""Ctrl-C (SIGINT) and SIGTERM, from the first import to Python's exit: no traceback, nothing lost.

What they do depends on what the process is doing:

- it imports, starts or exits: it ends at once. Libraries swallow an exception there, or turn it into one of their own.
- it trains: the step is finished and saved first (`defer_signals`).
- it does what must not be cut in two: they wait for its end (`hold_signals`).
- anything else: StopRequested is raised, so that every `finally` runs (`raise_on_signals`).

Python lets the main thread alone have signals: elsewhere nothing changes.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequested(KeyboardInterrupt):
    "SIGINT or SIGTERM was received."

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        "As a shell reports a signal: 130 is SIGINT, 143 SIGTERM."
        return 128 + self.signum


@contextmanager
def handling(handle: Callable):
    "Both signals call `handle(signum, frame)` in the block; a forked worker process ignores them, its parent decides."
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    parent = os.getpid()
    before = {s: signal.signal(s, lambda s, frame: handle(s, frame) if os.getpid() == parent else None)
              for s in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def exit_on_signals() -> None:
    "From now on both signals end the process at once, wherever nothing else handles them."
    for signum in SIGNALS:
        signal.signal(signum, exit_now)


def exit_now(signum: int, frame=None) -> None:
    "End the process here: no exception that a library could swallow, no traceback; half-written files are removed."
    from cifar_fast.utils.files import remove_unfinished

    remove_unfinished()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a stream that is being written to at this very moment
            stream.flush()
    with suppress(OSError):
        os.write(2, b"\ninterrupted\n")
    os._exit(128 + signum)


@contextmanager
def raise_on_signals():
    "The first signal raises StopRequested in the block, or ends the process where that could not be; so does a second."
    received = []

    def handle(signum, frame):
        received.append(signum)
        if len(received) > 1 or is_importing(frame):
            exit_now(signum)
        raise StopRequested(signum)

    def unraisable(args):  # raised in a destructor or a callback of C code, where Python can only report it
        if isinstance(args.exc_value, StopRequested):
            exit_now(args.exc_value.signum)
        hook(args)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        with handling(handle):
            yield
    except BaseException as e:
        if received and not isinstance(e, StopRequested):  # a library has turned it into an exception of its own
            raise StopRequested(received[0]) from e
        raise
    else:
        if received:  # a library has swallowed it
            raise StopRequested(received[0])
    finally:
        sys.unraisablehook = hook


def is_importing(frame) -> bool:
    "Whether a module is being imported, as far as `frame` and its callers say."
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def hold_signals():
    "A signal that is received in the block has its effect at the end of the block."
    received = []
    try:
        with handling(lambda signum, frame: received.append(signum)):
            yield
    finally:
        if received:
            signal.raise_signal(received[0])


@contextmanager
def defer_signals(checkpoint):
    """A signal sets `checkpoint.stop`, so that it saves after the step and raises; a second one stops at once.

    So does the first, once `checkpoint.done` says that no step is left.
    """
    from cifar_fast.utils.ranks import here  # this module is imported first of all, and stays without imports

    def handle(signum, frame):
        if checkpoint.stop or checkpoint.done:
            if is_importing(frame):
                exit_now(signum)
            raise StopRequested(signum)
        checkpoint.stop = StopRequested(signum)
        if not here().first:
            return
        text = (f"\n{signal.Signals(signum).name}: finishing the step, or the validation, and saving; "
                f"once more stops at once\n")
        with suppress(OSError):  # not by sys.stderr, which may be in the middle of a write and then refuses another
            os.write(2, text.encode())

    with handling(handle):
        yield
