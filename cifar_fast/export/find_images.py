"""Which images were named: paths, folders and globs."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from cifar_fast.data.images import EXTENSIONS
from cifar_fast.utils.files import expand_path
from cifar_fast.utils.text import printable


def find_images(patterns: Iterable[str]) -> tuple[list[Path], list[str], list[str]]:
    """Files for paths, folders (searched recursively) and globs, in a stable order; patterns that matched nothing; and
    what could not be read, each with the reason.
    """
    files, missing, closed = [], [], []
    for pattern in patterns:
        here, reasons = _matching(pattern)
        files += here
        closed += reasons
        if not here and not reasons:
            missing.append(pattern)
    return list(dict.fromkeys(files)), missing, closed


def _matching(pattern: str) -> tuple[list[Path], list[str]]:
    path, reasons = expand_path(pattern), []
    if not pattern:  # an empty variable of a script, which a path would take for this folder
        return [], []
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return [p for p in _below(path, reasons) if p.suffix.lower() in EXTENSIONS], reasons
        return [path], reasons
    except (OSError, ValueError) as e:  # a glob is no file either
        here = _globbed(path, reasons)
        if not here and not isinstance(e, FileNotFoundError | NotADirectoryError):
            reasons.append(f"{printable(pattern)}: {getattr(e, 'strerror', None) or e}")
        return here, reasons


def _globbed(pattern: Path, reasons: list[str]) -> list[Path]:
    "Files that match a glob. `**` follows no links to folders: with two that lead in circles glob's own never ends."
    parts = pattern.parts
    if "**" not in parts:
        return [Path(p) for p in sorted(glob.glob(str(pattern))) if os.path.isfile(p)]
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    return [p for p in (_below(root, reasons) if root.is_dir() else ())
            if _matches(p.relative_to(root).parts, parts[fixed:]) and p.is_file()]


def _matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    "Whether the parts of a path match those of a glob, in which ** stands for any number of folders."
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[i:], pattern[1:]) for i in range(len(names) + 1))
    return bool(names) and fnmatch(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _below(folder: Path, reasons: list[str]) -> Iterator[Path]:
    "Files at any depth; links to folders are not followed, so loops end. What cannot be listed is added to `reasons`."
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                here = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError as e:
            reasons.append(f"{printable(current)}: cannot be listed ({e.strerror})")
            continue
        folders = []
        for entry in here:
            if not _is_folder(entry):
                yield Path(entry.path)
            elif not entry.is_symlink():
                folders.append(Path(entry.path))
        waiting += reversed(folders)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
