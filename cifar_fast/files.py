"""Writes that are whole or did not happen: beside the target, flushed, then renamed over it."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".part"
"How the names of temporary files end; they begin with a dot and the name of their target."


@contextmanager
def written(path: str | Path):
    "A temporary path beside `path`; renamed over it when the block ends well, removed when it does not."
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, tmp = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
    os.close(fd)
    try:
        yield Path(tmp)
        with open(tmp, "rb+") as f:
            os.fsync(f.fileno())
        os.chmod(tmp, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(tmp, path)
    except BaseException:
        Path(tmp).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    with written(path) as tmp:
        tmp.write_text(text, encoding="utf-8")


def remove_temporaries(folder: Path, name: str | None = None) -> None:
    """Remove what a killed process left half written (or half removed) of `name` in `folder`, or of anything.

    For whoever knows that nobody is writing there now.
    """
    for path in folder.glob(f".{glob.escape(name) if name else '*'}.*{TEMPORARY}"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
