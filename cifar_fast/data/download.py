"""CIFAR-10's official archive: downloaded once, its checksum verified, read without unpacking it to disk."""

import errno
import hashlib
import http.client
import os
import pickle
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
from filelock import FileLock

from cifar_fast.data.cifar10 import ARCHIVE, MD5, URL
from cifar_fast.data.errors import DataError
from cifar_fast.utils.log import progress
from cifar_fast.utils.text import printable

BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
BLOCK = 2**20  # bytes
TIMEOUT = 60  # seconds without a single byte
OFFLINE = "without network use data=digits, or point data=PATH or CIFAR_FAST_DATA at an image tree"


def official_archive(folder: Path) -> Path:
    "The archive in `folder`, downloaded if missing; its md5 is verified each time. Raises DataError."
    archive, part = folder / ARCHIVE, folder / f"{ARCHIVE}.part"
    if not archive.is_file():
        with FileLock(folder / f".{ARCHIVE}.lock"):  # runs with images of several sizes take it at the same time
            if not archive.is_file():
                fetch(part)
                if (md5 := file_md5(part)) != MD5:
                    part.unlink()
                    raise DataError(f"the download of {URL} is damaged: its md5 is {md5} instead of {MD5}; "
                                    f"run the same command again, or {OFFLINE}")
                os.replace(part, archive)
    elif (md5 := file_md5(archive)) != MD5:
        raise DataError(f"{printable(archive)} is damaged: its md5 is {md5} instead of {MD5}; "
                        "delete it and run the same command again to download it again")
    return archive


def fetch(part: Path) -> None:
    "Download the archive to `part`, from where an interrupted download stopped. Raises DataError."
    start = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "cifar_fast"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(URL, headers=headers), timeout=TIMEOUT) as response:
            length, received = int(response.headers.get("Content-Length") or 0), 0
            with open(part, "ab" if response.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as file:
                blocks = iter(lambda: response.read(BLOCK), b"")
                for block in progress(blocks, -(-length // BLOCK), f"downloading {ARCHIVE}", "MiB"):
                    received += file.write(block)
            if received < length:
                raise http.client.IncompleteRead(b"", length - received)
    except (http.client.HTTPException, OSError) as error:  # urllib's URLError is an OSError
        if start and getattr(error, "code", None) == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # the file is already complete: the checksum decides
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # of the folder, not of the network
        reason = printable(getattr(error, "reason", error)) or type(error).__name__
        raise DataError(f"cannot download {URL}: {reason}; run the same command again to resume, or put the archive "
                        f"at {printable(part.with_name(ARCHIVE))}; {OFFLINE}") from error


def file_md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def read_archive(
    archive: Path,  # its md5 verified: unpickling runs whatever code a pickle holds
) -> dict[str, tuple[np.ndarray, np.ndarray]]:  # split → images (N, 32, 32, 3) uint8, labels (N,) int64
    "The splits in their original order, read in one pass."
    wanted = sum(BATCHES.values(), [])
    with tarfile.open(archive) as tar:
        batches = {Path(member.name).name: pickle.load(tar.extractfile(member), encoding="latin1")
                   for member in tar if Path(member.name).name in wanted}
    return {split: joined([batches[name] for name in names]) for split, names in BATCHES.items()}


def joined(batches: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    "Batches hold an image as its planes of red, green and blue, row by row."
    planes = np.concatenate([batch["data"] for batch in batches])
    labels = np.concatenate([np.array(batch["labels"], dtype=np.int64) for batch in batches])
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
