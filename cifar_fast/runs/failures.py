"""Errors of libraries during a run that a user can do something about: what they mean and what to try."""

from __future__ import annotations

import errno
import multiprocessing
import time

import torch

from cifar_fast.recipe import Recipe
from cifar_fast.recipe.spec import SIDE
from cifar_fast.runs.run_dir import RunError
from cifar_fast.utils.errors import FULL
from cifar_fast.utils.ranks import is_lost

OUT_OF_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "MPS backend out of memory",
                 "_STATUS_ALLOC_FAILED")
"Words in the RuntimeErrors that mean it."

UNWRITABLE = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM)


def explained(e: BaseException, recipe: Recipe | None = None) -> RunError | None:
    "What happened and what to try, for an error that a library raised; None where its own message is enough."
    text = " ".join(str(e).split())
    if is_lost(e):
        return RunError(f"another process of this run has ended, so this one cannot go on ({text[:150]})")
    if isinstance(e, MemoryError | torch.OutOfMemoryError) or any(sign in text for sign in OUT_OF_MEMORY):
        smaller, used = "a smaller batch (bs=…)", ""
        if recipe:
            smaller, used = f"bs={recipe.bs // 2}" if recipe.bs > 1 else "a smaller model", f" with bs={recipe.bs}"
            smaller += f", images below size={recipe.size}" if (recipe.size or 0) > SIDE else ""
        return RunError(f"out of memory{used}: {text[:150] or type(e).__name__}. Try {smaller}, or end other programs "
                        f"that use this memory")
    if isinstance(e, OSError) and e.errno in UNWRITABLE or "PytorchStreamWriter failed" in text:
        file = getattr(e, "filename", None) or (recipe.exports if recipe else "the file")
        reason = getattr(e, "strerror", None) or "the disk is full, or a limit on the size of files is reached"
        return RunError(f"{file} cannot be written ({reason}): make room, or choose another place (exports=DIR). Files "
                        f"that existed before are unchanged")
    died = isinstance(e, RuntimeError) and "DataLoader worker" in text
    if died or is_worker_cut_off(e, recipe):
        return RunError(f"a worker process died ({text[:150]}): it was killed, or ran out of memory. Try workers=0: "
                        f"the images are the same for any number of workers")
    return None


def is_worker_cut_off(e: BaseException, recipe: Recipe | None) -> bool:
    "Whether a worker's pipe broke in the middle of a message; a BrokenPipeError is a closed reader of our output."
    return (bool(recipe and recipe.workers) and isinstance(e, ConnectionError | EOFError)
            and not isinstance(e, BrokenPipeError))


def wait_for_dead_worker(workers: int, seconds: float = 5) -> None:
    """Wait until one of so many worker processes has ended, for so many seconds at most.

    A worker's pipe breaks before its end is signalled, and torch answers that signal with a RuntimeError wherever this
    process then is: while it prints what happened, or while Python exits. Here the error does no harm.
    """
    end = time.monotonic() + seconds
    try:
        while len(multiprocessing.active_children()) >= workers and time.monotonic() < end:
            time.sleep(0.02)
    except RuntimeError as e:
        if "DataLoader worker" not in str(e):
            raise
