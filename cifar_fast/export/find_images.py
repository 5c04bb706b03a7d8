"""Which images were named: paths, folders, globs, and text files that list them."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from hashlib import blake2b
from pathlib import Path

from cifar_fast.data.images import EXTENSIONS
from cifar_fast.data.tree import folder_id, ids_above
from cifar_fast.utils.files import expand_path
from cifar_fast.utils.text import printable


def find_images(patterns: Iterable[str], origins: dict | None = None) -> tuple[list[Path], list[str], list[str]]:
    """Files for paths, folders (searched recursively), globs and lists, in a stable order; patterns that matched
    nothing; and what could not be read, each with the reason.

    Of each file that a list names, `origins` is given the list and line.
    """
    missing, closed = [], []
    return list(walk_images(patterns, missing, closed, origins)), missing, closed


def walk_images(patterns: Iterable[str], missing: list[str], closed: list[str],
                origins: dict | None = None) -> Iterator[Path | str]:
    "The files of `find_images` one by one, each once; the other two are added to the lists given."
    patterns = list(dict.fromkeys(patterns))
    # Which files were there: 16 bytes each, and none where a walk through one folder meets every file once.
    seen: set[bytes] | None = set() if len(patterns) > 1 or any(map(_is_list, patterns)) else None
    for pattern in patterns:
        reasons, found = len(closed), False
        for file in _matching(pattern, closed, origins):
            found = True
            if seen is not None:
                digest = blake2b(os.fsencode(file), digest_size=16).digest()
                if digest in seen:
                    continue
                seen.add(digest)
            yield file
        if not found and len(closed) == reasons:
            missing.append(pattern)


def _matching(pattern: str, reasons: list[str], origins: dict | None) -> Iterator[Path | str]:
    path = expand_path(pattern)
    if not pattern:  # an empty variable of a script, which a path would take for this folder
        return
    try:
        folder = stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError) as e:  # a glob is no file either
        here = _globbed(path, reasons)
        if not here and not isinstance(e, FileNotFoundError | NotADirectoryError):
            reasons.append(f"{printable(pattern)}: {getattr(e, 'strerror', None) or e}")
        yield from here
        return
    if folder:
        yield from (p for p in _below(path, reasons) if p.suffix.lower() in EXTENSIONS)
    elif _is_list(pattern):
        yield from _listed(path, reasons, origins)
    else:
        yield path


def _is_list(pattern: str) -> bool:
    return pattern.lower().endswith(".txt")


def _listed(path: Path, reasons: list[str], origins: dict | None) -> Iterator[Path | str]:
    "The images of a text file: a path a line, relative to the current folder as on the command line, or a URI."
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    reasons.append(f"{printable(path)}: is not UTF-8 text (UTF-16?), so it cannot be read as a list of "
                                   f"images; save it as UTF-8")
                    return
                if name := line.rstrip("\r\n"):
                    found = name if "://" in name else expand_path(name)
                    if origins is not None:
                        origins.setdefault(found, f"{printable(path)}, line {number}")
                    yield found
    except OSError as e:
        reasons.append(f"{printable(path)}: {e.strerror}")


def _globbed(pattern: Path, reasons: list[str]) -> list[Path]:
    "Files that match a glob. With two links to folders that lead in circles glob's own `**` never ends."
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
    """Files at any depth, also behind links to folders. What cannot be listed is added to `reasons`.

    Each real folder is entered once, by its own name before that of a link to it, and none above `folder`: loops end.
    """
    waiting, links, entered = [folder], [], ids_above(folder)
    while waiting or links:
        current = waiting.pop() if waiting else links.pop(0)
        place = folder_id(current)
        if place and place in entered:
            continue
        entered.add(place)
        try:
            with os.scandir(current) as entries:
                # Names: entries of a million files take three times as much memory.
                files, folders, linked = [], [], []
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if not _is_folder(entry):
                        files.append(entry.name)
                    else:
                        (linked if entry.is_symlink() else folders).append(entry.name)
        except OSError as e:
            reasons.append(f"{printable(current)}: cannot be listed ({e.strerror})")
            continue
        yield from (current / name for name in sorted(files))
        waiting += (current / name for name in sorted(folders, reverse=True))
        links += (current / name for name in sorted(linked))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
