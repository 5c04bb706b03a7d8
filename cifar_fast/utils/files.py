"""Writes that are whole or did not happen: beside the target, flushed, then renamed over it. And reads that end."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

TEMPORARY = ".part"
"How the names of temporary files end; they begin with a dot and the name of their target."

unfinished: set[str] = set()
"Temporary files of this process that are being written, for `remove_unfinished`."


@contextmanager
def atomic_write(path: str | Path):
    """A temporary path beside `path`; renamed over it when the block succeeds, removed when it fails.

    A link stays one: the file that it leads to is replaced. A device or pipe, /dev/stdout say, is written into.
    """
    path = Path(path)
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder, with_path_in_error(path):
            yield (tmp := Path(folder) / "whole")
            with open(path, "wb") as out:
                out.write(tmp.read_bytes())
        return
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    with with_path_in_error(path):
        fd, tmp = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
        os.close(fd)
        unfinished.add(tmp)
        try:
            yield Path(tmp)
            with open(tmp, "rb+") as f:
                os.fsync(f.fileno())
            os.chmod(tmp, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
            os.replace(tmp, path)
        except BaseException:
            Path(tmp).unlink(missing_ok=True)
            raise
        finally:
            unfinished.discard(tmp)


def is_stream(path: Path) -> bool:
    "Whether this is no file that could be replaced: a device, a pipe, or what /dev/stdout leads to."
    device = path.parts[:2] == ("/", "dev") and path.parts[2:3] != ("shm",)  # /dev/shm: a folder in memory
    return path.exists() and (device or not (path.is_file() or path.is_dir()))


@contextmanager
def new_folder(path: Path):
    "A temporary folder beside `path`; replaces it when the block succeeds, is removed when it fails."
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent))
    try:
        (new := tmp / "new").mkdir()
        yield new
        replace_folder(new, path, tmp / "former")
    except OSError as e:
        if str(e.filename).startswith(str(tmp)):
            e.filename = str(path) + str(e.filename)[len(str(tmp / "new")):]
        raise
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def replace_folder(new: Path, path: Path, former: Path) -> None:
    "Rename `new` to `path`; a folder that is there becomes `former`, and comes back where that fails, or is removed."
    try:
        if path.exists():
            os.replace(path, former)
        os.replace(new, path)
    except BaseException:
        if former.exists() and not path.exists():
            os.replace(former, path)
        raise
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def with_path_in_error(path: Path):
    "An OSError that leaves the block names `path` where it named nothing (a full disk does) or a temporary file of it."
    try:
        yield
    except OSError as e:
        unnamed = e.filename is None or (e.filename2 is None and str(e.filename).endswith(TEMPORARY))
        if unnamed and e.errno is not None:  # without an errno its text would be lost
            e.filename = str(path)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    with atomic_write(path) as tmp:
        tmp.write_text(text, encoding="utf-8")


def write_new(path: str | Path, text: str) -> None:
    "A file that is not there yet. Raises FileExistsError where it is, and leaves none that is cut."
    with with_path_in_error(Path(path)):
        file = open(path, "x", encoding="utf-8")
        try:
            with file:
                file.write(text)
        except BaseException:
            Path(path).unlink(missing_ok=True)
            raise


@contextmanager
def regular(path: str | Path, most: int):
    "A file open to read and its size. Raises OSError for a pipe (it would block), a device (never end), one too long."
    def opener(name, flags):
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    with open(path, "rb", opener=opener) as file:
        facts = os.fstat(file.fileno())  # of the open file, which cannot be swapped
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("it is no regular file")
        if facts.st_size > most:
            raise OSError(f"it has {facts.st_size:,} bytes, more than the {most:,} that are read")
        yield file, facts.st_size


def read_regular(path: str | Path, most: int) -> bytes:
    with regular(path, most) as (file, size):
        return whole(file, size)


def whole(file, size: int) -> bytes:
    "All of an open file. Raises OSError where it is no longer as long as it was."
    file.seek(0)
    content = file.read(size + 1)
    if len(content) != size:
        raise OSError("it changes while it is read")
    return content


def expand_path(path: str | Path) -> Path:
    "The path with `~` expanded; unchanged where there is no such home, and so not found."
    return Path(os.path.expanduser(path))


def remove_temporaries(folder: Path, name: str | None = None) -> None:
    """Remove what a killed process left half written (or half removed) of `name` in `folder`, or of anything.

    Only for callers that know that nothing else is writing there.
    """
    for path in folder.glob(f".{glob.escape(name) if name else '*'}.*{TEMPORARY}"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def remove_unfinished() -> None:
    "Remove what `atomic_write` has not finished, for a process that ends without leaving its blocks."
    for name in list(unfinished):
        with suppress(OSError):
            os.unlink(name)
