"""ONNX Runtime for browsers: three files of the npm package onnxruntime-web, fetched once and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from cifar_fast.data.cache import cache_folder
from cifar_fast.export.card_format import ExportError
from cifar_fast.utils.files import expand_path, new_folder, read_regular
from cifar_fast.utils.text import printable

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
FILES = {  # name in the package → sha256
    "dist/ort.wasm.min.js": "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    "dist/ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "dist/ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
VARIABLE = "CIFAR_FAST_ORT_WEB"
MAX_BYTES = 2**26
SECONDS = 600  # for npm
BY_HAND = (f"run npm pack {PACKAGE}@{VERSION} where there is npm and a network, and name the .tgz that it makes (or "
           f"the folder it unpacks to) with --runtime or in {VARIABLE}")


def runtime_files(path: str | Path | None = None) -> dict[str, bytes]:
    """Content by file name, from the package's folder or .tgz at `path`, else from the one that CIFAR_FAST_ORT_WEB
    names, else from the cache, which npm fills. Raises ExportError where a file is missing or not the pinned one.
    """
    if named := path or os.environ.get(VARIABLE):
        return read_package(expand_path(named))
    kept = cache_folder() / f"{PACKAGE}-{VERSION}"
    try:
        return read_package(kept)
    except ExportError:  # absent or damaged
        files = fetch()
    try:
        with new_folder(kept) as folder:
            for name, content in files.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
    except OSError as e:
        raise ExportError(f"{printable(kept)} cannot be written ({e.strerror or e}); make room, or set "
                          f"CIFAR_FAST_CACHE to a folder that can be written") from None
    return files


def fetch() -> dict[str, bytes]:
    "The package from npm, which knows its registry. Raises ExportError."
    npm = shutil.which("npm")
    if npm is None:
        raise ExportError(f"the page needs {PACKAGE} {VERSION}, and there is no npm here to fetch it; {BY_HAND}")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--silent", "--ignore-scripts"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS)
            return read_package(next(Path(folder).glob("*.tgz")))
        except (subprocess.SubprocessError, OSError, StopIteration) as e:
            reason = (getattr(e, "stderr", None) or str(e)).strip().splitlines()
            raise ExportError(f"npm pack {PACKAGE}@{VERSION} failed ({printable(reason[-1]) if reason else 'npm'}); "
                              f"try again with a network, or {BY_HAND}") from None


def read_package(path: Path) -> dict[str, bytes]:
    "From an unpacked package or its .tgz. Raises ExportError."
    try:
        files = read_archive(path) if path.is_file() else {n: read_regular(path / n, MAX_BYTES) for n in FILES}
    except (OSError, EOFError, tarfile.TarError, KeyError) as e:
        raise ExportError(f"{printable(path)} is not {PACKAGE} {VERSION} ({printable(e)}); {BY_HAND}") from None
    for name, content in files.items():
        if (found := hashlib.sha256(content).hexdigest()) != FILES[name]:
            raise ExportError(f"{printable(path)}: {name} is not that of {PACKAGE} {VERSION} (sha256 {found[:12]} "
                              f"instead of {FILES[name][:12]}); {BY_HAND}")
    return files


def read_archive(path: Path) -> dict[str, bytes]:
    "Only the files that are needed, into memory: what else an archive holds is written nowhere."
    with tarfile.open(path) as tar:
        files = {}
        for name in FILES:
            member = tar.getmember(f"package/{name}")
            if not member.isfile() or member.size > MAX_BYTES:
                raise tarfile.TarError(f"{name} is no file of up to {MAX_BYTES:,} bytes")
            files[name] = tar.extractfile(member).read()
    return files
