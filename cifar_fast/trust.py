"""Which pickles this user lets run: opening one runs whatever code it holds.

A list of SHA-256 sums, one a line with the file it was said of, as `sha256sum` prints them. It names contents, not
places: a file that changes is trusted no more.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from filelock import FileLock

from cifar_fast.files import write_text
from cifar_fast.modelfiles import ExportError, file_sha256


def trust_list() -> Path:
    "CIFAR_FAST_TRUST, or `cifar_fast/trusted` in the user's folder for settings."
    if given := os.environ.get("CIFAR_FAST_TRUST"):
        return Path(given).expanduser()
    base = os.environ.get("APPDATA") if os.name == "nt" else os.environ.get("XDG_CONFIG_HOME")
    return Path(base or "~/.config").expanduser() / "cifar_fast" / "trusted"


def trusted_sums() -> set[str]:
    try:
        lines = trust_list().read_text("utf-8").splitlines()
    except FileNotFoundError:
        return set()
    return {line.split(maxsplit=1)[0] for line in lines if line.strip()}


def trust(path: Path) -> str:
    "Add the file's sum to the list, once; returns it. Raises OSError naming the file."
    found, listed = file_sha256(path), trust_list()
    listed.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{listed}.lock", timeout=60):
        if found not in trusted_sums():
            before = listed.read_text("utf-8") if listed.exists() else ""
            write_text(listed, f"{before}{found}  {path.resolve()}\n")
    return found


def require_trust(path: Path, content: bytes) -> None:
    "Raises ExportError where the sum of what was read from `path` is not in the list."
    if hashlib.sha256(content).hexdigest() not in trusted_sums():
        raise ExportError(
            f"{path} is a pickle: opening it would run whatever code it holds, and it is not in your list of trusted "
            f"files ({trust_list()}). {path.with_suffix('')} would name the .safetensors and .json, which run nothing. "
            f"Where you know who made it: python -m cifar_fast trust {path}, or --trust-pickle this once")
