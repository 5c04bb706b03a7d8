"""Which pickles this user lets run: opening one runs whatever code it holds.

A list of SHA-256 checksums, one a line with the file's path, as `sha256sum` prints them. Contents are trusted, not
paths: a file that changes is no longer trusted.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path

from filelock import FileLock

from cifar_fast.export.card_format import ExportError
from cifar_fast.export.files import file_sha256
from cifar_fast.utils.files import atomic_write, expand_path
from cifar_fast.utils.text import printable


def trust_list() -> Path:
    "CIFAR_FAST_TRUST, or `cifar_fast/trusted` in the user's folder for settings."
    if given := os.environ.get("CIFAR_FAST_TRUST"):
        return expand_path(given)
    base = os.environ.get("APPDATA") if os.name == "nt" else os.environ.get("XDG_CONFIG_HOME")
    return expand_path(base or "~/.config") / "cifar_fast" / "trusted"


def trusted_sums() -> set[str]:
    "The checksums in the list; a line that does not start with one is ignored, whatever bytes it has."
    return {checksum.decode() for checksum in re.findall(rb"^[0-9a-f]{64}(?=\s|\Z)", listed_bytes(), re.MULTILINE)}


def listed_bytes() -> bytes:
    "The list as it is, without bytes where there is none."
    try:
        return trust_list().read_bytes()
    except FileNotFoundError:
        return b""


def trust(
    path: Path,
    named: Path | None = None,  # where it will be, if not there yet
) -> str:
    "Add the file's sum to the list, once; returns it. Raises OSError naming the file."
    checksum, listed = file_sha256(path), trust_list()
    listed.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{listed}.lock", timeout=60):
        if checksum not in trusted_sums():
            before = listed_bytes()
            # A line break in the path would start another line, and so could add a checksum of its own.
            line = f"{checksum}  {printable(os.path.realpath(named or path))}\n".encode()
            with atomic_write(listed) as tmp:
                tmp.write_bytes(before + (b"" if before.endswith(b"\n") or not before else b"\n") + line)
    return checksum


def require_trust(path: Path, content: bytes) -> None:
    "Raises ExportError where the sum of what was read from `path` is not in the list."
    if hashlib.sha256(content).hexdigest() not in trusted_sums():
        raise ExportError(
            f"{path} is a pickle: opening it would run whatever code it holds, and it is not in your list of trusted "
            f"files ({trust_list()}). {path.parent} opens the run's card and weights, which run no code. "
            f"Where you know who made it: python -m cifar_fast trust {shlex.quote(str(path))}, or --trust-pickle this "
            f"once")
