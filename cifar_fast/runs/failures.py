"""Failures of a run that a user can do something about, in words."""

from __future__ import annotations

import errno
import multiprocessing
import time

import torch

from cifar_fast.recipe import Recipe
from cifar_fast.runs.run_dir import RunError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"What a full disk, a quota, a limit on files and a folder without permission answer."


def explained(e: BaseException, recipe: Recipe | None = None) -> RunError | None:
    "What happened and what to try, for an error that a library raised; None for one that says enough or is ours."
    text = " ".join(str(e).split())
    if isinstance(e, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in text:
        least, having = "a smaller batch (bs=…)", ""
        if recipe:
            least, having = f"bs={recipe.bs // 2}" if recipe.bs > 1 else "a smaller net", f" with bs={recipe.bs}"
        return RunError(f"out of memory{having}: {text[:150] or type(e).__name__}. Try {least}, or end what else holds "
                        f"memory there")
    if isinstance(e, OSError) and e.errno in FULL or "PytorchStreamWriter failed" in text:
        where = getattr(e, "filename", None) or (recipe.exports if recipe else "the file")
        why = getattr(e, "strerror", None) or "the disk is full, or a limit on files is reached"
        return RunError(f"{where} cannot be written ({why}): make room, or choose another place (exports=DIR). What "
                        f"stood there before is whole")
    died = isinstance(e, RuntimeError) and "DataLoader worker" in text
    if died or is_cut_off(e, recipe):
        return RunError(f"a process that augments images died ({text[:150]}): it was killed, or ran out of memory. "
                        f"Try workers=0: the images are the same for any number")
    return None


def is_cut_off(e: BaseException, recipe: Recipe | None) -> bool:
    "Whether a process that augments images fell silent in mid-sentence; a broken pipe is a reader's of our output."
    return (bool(recipe and recipe.workers) and isinstance(e, ConnectionError | EOFError)
            and not isinstance(e, BrokenPipeError))


def wait_for_the_dead(workers: int, seconds: float = 5) -> None:
    """Until one of so many processes, which fell silent, has ended; for so many seconds at most.

    Its pipe breaks before its end is signalled, and torch answers that signal with a RuntimeError wherever this process
    then is: in the middle of telling what happened, or of Python's own end. Here it does no harm.
    """
    end = time.monotonic() + seconds
    try:
        while len(multiprocessing.active_children()) >= workers and time.monotonic() < end:
            time.sleep(0.02)
    except RuntimeError as e:
        if "DataLoader worker" not in str(e):
            raise
