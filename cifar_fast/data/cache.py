"""A folder of decoded datasets: an entry is whole or absent, never half."""

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from cifar_fast.data.errors import DataError
from cifar_fast.utils.text import printable

DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError)  # what opening a broken entry may raise
T = TypeVar("T")


def cache_folder(cache: str | os.PathLike | None = None) -> Path:
    "`cache`, else CIFAR_FAST_CACHE, else cifar_fast in XDG_CACHE_HOME, LOCALAPPDATA (Windows) or ~/.cache."
    named = cache or os.environ.get("CIFAR_FAST_CACHE")
    if named:
        return Path(os.path.abspath(os.path.expanduser(named)))
    local = os.environ.get("LOCALAPPDATA") if os.name == "nt" else None
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or local or "~/.cache")) / "cifar_fast"


def cached(
    parent: Path,  # created if it is missing
    slot: str,  # what the entry holds: one dataset and seed; letters, digits, _ and - only
    state: str,  # changes with the contents; entries of the same slot in another state are deleted
    build: Callable[[Path], None],  # fills an empty folder
    load: Callable[[Path], T],  # opens a filled one; raises one of DAMAGE if it is broken
) -> T:
    """What `load` returns for the entry, which is built where it is missing or damaged.

    One process builds a slot, the others wait for it and load what it built. Raises DataError where the entry cannot
    be written.
    """
    entry = parent / f"{slot}@{state}"
    if entry.is_dir():
        try:
            return load(entry)  # without the lock: a cache may be read-only
        except DAMAGE as error:
            warnings.warn(f"the cache {printable(entry)} is damaged ({printable(error)}); it is rebuilt",
                          stacklevel=3)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with FileLock(parent / f".{slot}.lock"):
            return load_or_build(entry, slot, build, load)
    except OSError as error:
        raise DataError(f"cannot write decoded images to {printable(parent)}: {printable(error)}; make room, or set "
                        "CIFAR_FAST_CACHE to a folder that can be written") from error


def load_or_build(entry: Path, slot: str, build: Callable[[Path], None], load: Callable[[Path], T]) -> T:
    "With the slot's lock held: built in a folder beside the entry, flushed and renamed, so a crash leaves no entry."
    if entry.is_dir():
        try:
            return load(entry)  # another process built it while this one waited
        except DAMAGE:
            pass
    part = entry.with_name(f".{slot}.part")
    shutil.rmtree(part, ignore_errors=True)  # a killed process leaves one
    try:
        part.mkdir()
        build(part)
        sync_folder(part)
        for former in entry.parent.glob(f"{slot}@*"):
            shutil.rmtree(former, ignore_errors=True)  # a process that has mapped it keeps its images
        part.rename(entry)
        sync_folder(entry.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return load(entry)


def sync_folder(folder: Path) -> None:
    "Flush the names in `folder` to disk, where the system can."
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
