"""CIFAR-10's official archive: fetched, checked whole, read without unpacking."""

import gzip
import hashlib
import http.client
import os
import pickle
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np

from cifar_fast.data.cache import scratch_folder
from cifar_fast.data.errors import DataError
from cifar_fast.utils.log import progress
from cifar_fast.utils.text import printable

__all__ = ["ARCHIVE", "CLASSES", "MD5", "URL", "official_archive", "read_archive"]

# Address and md5 are those of torchvision.datasets.CIFAR10, which is not used itself: it knows no timeout,
# unpacks pickles that anybody may change afterwards, and imports torch.
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
_BLOCK = 2**20  # bytes
_UNPACKED = 2**28  # bytes; the official archive has 186 million
_TIMEOUT = 60  # seconds without a single byte
_BROKEN = (  # what a file that is no such archive may raise while it is read
    *(tarfile.TarError, zlib.error, pickle.UnpicklingError, OSError, EOFError),
    *(LookupError, TypeError, ValueError, AttributeError),
    *(MemoryError, OverflowError, RecursionError),  # a few bytes can claim an array or a text of any size
)
_ELSE = "without network use data=digits, or point data=PATH or CIFAR_FAST_DATA at an image tree"


def official_archive(folder: Path) -> Path:
    "`folder`'s copy of the archive, downloaded if missing, its md5 checked each time. Raises DataError."
    archive = folder / ARCHIVE
    if archive.is_file():
        if (found := _md5(archive)) != MD5:
            raise DataError(
                f"{printable(archive)} has md5 {found}, not {MD5}: "
                "incomplete or changed; delete it and run the same command again to download it anew"
            )
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder) as scratch:
        _fetch(scratch / ARCHIVE)
        if (found := _md5(scratch / ARCHIVE)) != MD5:
            raise DataError(
                f"what {URL} sent ({(scratch / ARCHIVE).stat().st_size:,} bytes) has md5 {found}, not {MD5}: "
                f"incomplete or changed, and thrown away; run the same command again, or {_ELSE}"
            )
        os.replace(scratch / ARCHIVE, archive)
    return archive


def read_archive(
    archive: Path,  # its md5 known to be right
) -> dict[str, tuple[np.ndarray, np.ndarray]]:  # split → images (N, 32, 32, 3) uint8, labels (N,) int64
    "The splits in their original order, read in one pass: nothing is unpacked to disk. Raises DataError."
    wanted = {"batches.meta", *sum(_BATCHES.values(), [])}
    try:
        with gzip.open(archive) as plain, tarfile.open(fileobj=(file := _Limited(plain)), mode="r|") as tar:
            found = {
                Path(member.name).name: _Unpickler(tar.extractfile(member), encoding="latin1").load()
                for member in tar
                if member.isfile() and Path(member.name).name in wanted
            }
            while file.read(_BLOCK):  # to the end, where gzip keeps its own sum
                pass
        if tuple(found["batches.meta"]["label_names"]) != CLASSES:
            raise ValueError(f"its classes are {found['batches.meta']['label_names']}")
        return {split: _joined([found[name] for name in names]) for split, names in _BATCHES.items()}
    except _BROKEN as error:
        raise DataError(
            f"{printable(archive)} does not hold CIFAR-10 as expected ({printable(error) or type(error).__name__}); "
            "delete it and run the same command again"
        ) from error


class _Limited:
    "A file that raises ValueError where it goes on for longer than the archive may: few bytes can unpack to any size."

    def __init__(self, file):
        self.file, self.left = file, _UNPACKED

    def read(self, size: int) -> bytes:
        data = self.file.read(min(size, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise ValueError(f"it unpacks to more than {_UNPACKED:,} bytes")
        return data


def _fetch(path: Path) -> None:
    request = urllib.request.Request(URL, headers={"User-Agent": "cifar_fast"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, open(path, "wb") as file:
            length = int(response.headers.get("Content-Length") or 0)
            blocks = iter(lambda: response.read(_BLOCK), b"")
            for block in progress(blocks, -(-length // _BLOCK), f"downloading {ARCHIVE}", "MiB"):
                file.write(block)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = printable(getattr(error, "reason", error)) or type(error).__name__
        raise DataError(
            f"cannot download {URL}: {reason}; try again, or fetch it elsewhere and put it at "
            f"{printable(path.parent.parent / ARCHIVE)}; {_ELSE}"
        ) from error


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _joined(batches: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    "Planes of red, green and blue, row by row, as the batches hold them → images."
    planes = np.concatenate([np.asarray(batch["data"], dtype=np.uint8) for batch in batches])
    labels = np.concatenate([np.asarray(batch["labels"], dtype=np.int64) for batch in batches])
    if planes.shape != (len(labels), 3 * 32 * 32) or labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(f"images {planes.shape}, {len(labels)} labels up to {labels.max()}")
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def _as_bytes(text: str, encoding: str) -> bytes:
    "What pickles of Python 3 call to make bytes."
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    "Arrays, numbers, texts, lists and dicts; whatever else a pickle asks for is refused."

    _reconstruct = np.empty(0).__reduce__()[0]  # numpy has moved it between modules
    _allowed = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _as_bytes,
    }

    def find_class(self, module: str, name: str):
        try:
            return self._allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None
