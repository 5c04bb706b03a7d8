"""A folder of things that were costly to make: whole or absent, never half."""

import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cifar_fast.data.errors import DataError
from cifar_fast.utils.text import printable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["cache_folder", "cached", "scratch_folder", "sync_folder"]

_SCRATCH = ".tmp-"
_DAY = 86_400  # seconds
_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError)  # what opening a broken entry may raise
_ELSEWHERE = "CIFAR_FAST_CACHE to a folder that can be written"
T = TypeVar("T")


def cache_folder(cache: str | os.PathLike | None = None) -> Path:
    "`cache`, else CIFAR_FAST_CACHE, else cifar_fast in XDG_CACHE_HOME, LOCALAPPDATA (Windows) or ~/.cache."
    named = cache or os.environ.get("CIFAR_FAST_CACHE")
    if named:
        return Path(os.path.abspath(os.path.expanduser(named)))
    local = os.environ.get("LOCALAPPDATA") if os.name == "nt" else None
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or local or "~/.cache")) / "cifar_fast"


def cached(
    parent: Path,  # made where it is missing
    slot: str,  # what is kept: one dataset and seed; letters, digits, _ and - only
    state: str,  # changes with the contents; an entry of the same slot in another state is thrown away
    build: Callable[[Path], None],  # fills an empty folder
    load: Callable[[Path], T],  # opens a filled one; raises one of _DAMAGE if it is broken
) -> T:
    """What `load` makes of the entry, which is built where it is missing or damaged.

    An entry is built in a scratch folder, flushed and renamed, so a crash leaves none; of two processes that
    build it at once the first to finish wins and both go on. Raises DataError where it cannot be written.
    """
    entry = parent / f"{slot}@{state}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        for _ in range(3):  # another process may take the entry away between two of our steps
            if entry.is_dir():
                try:
                    return load(entry)
                except _DAMAGE as error:
                    warnings.warn(f"{_damaged(entry, error)}; building it again", stacklevel=3)
                    _discard(entry)
            with scratch_folder(parent) as folder:
                build(folder)
                sync_folder(folder)
                _publish(folder, entry)
            for former in parent.glob(f"{slot}@*"):
                if former != entry:
                    _discard(former)
        try:
            return load(entry)
        except _DAMAGE as error:
            text = f"{_damaged(entry, error)}, newly built as it is; check the disk, or set {_ELSEWHERE}"
            raise DataError(text) from error
    except OSError as error:
        where = f"cannot keep decoded images in {printable(parent)}"
        raise DataError(f"{where}: {printable(error)}; make room, or set {_ELSEWHERE}") from error


def _damaged(entry: Path, error: Exception) -> str:
    return f"the cache {printable(entry)} is damaged ({printable(error)})"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    "An empty folder in `parent`, removed in the end unless renamed; a killed process's is swept later."
    folder, lock = _new_scratch(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def sync_folder(folder: Path) -> None:
    "Flush the names in `folder` to disk, where the system can."
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _publish(folder: Path, entry: Path) -> None:
    try:
        os.rename(folder, entry)
    except OSError:
        if not entry.is_dir():  # else another process was first, and ours is not needed
            raise
    sync_folder(entry.parent)


def _new_scratch(parent: Path) -> tuple[Path, int | None]:
    "A scratch folder and the lock that shows its maker alive: the system drops it however the process ends."
    while True:
        folder = parent / f"{_SCRATCH}{secrets.token_hex(8)}"
        folder.mkdir()
        if fcntl is None:
            return folder, None
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # swept before it was locked
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder, lock
        os.close(lock)


def _sweep(parent: Path) -> None:
    "Remove scratch folders whose maker is gone; without locks, those older than a day."
    for folder in parent.glob(f"{_SCRATCH}*"):
        try:
            if fcntl is None:
                if time.time() - folder.stat().st_mtime > _DAY:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            lock = os.open(folder, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # its maker is at work
            pass
        finally:
            os.close(lock)


def _discard(entry: Path) -> None:
    "Take an entry away in one step, then delete it. Processes that have it mapped keep what they mapped."
    aside = entry.with_name(f"{_SCRATCH}{secrets.token_hex(8)}")
    try:
        os.rename(entry, aside)
    except OSError:  # gone already, or held open on Windows
        return
    shutil.rmtree(aside, ignore_errors=True)
