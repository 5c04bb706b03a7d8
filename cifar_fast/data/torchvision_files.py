"""torchvision's own downloads and checksums: a dataset is in the cache whole, or not at all."""

import gzip
import inspect
import shutil
import socket
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from cifar_fast.data.download import TIMEOUT
from cifar_fast.data.errors import DataError
from cifar_fast.data.torchvision_sets import TorchvisionSet
from cifar_fast.utils.errors import FULL
from cifar_fast.utils.log import log_progress, quiet
from cifar_fast.utils.text import printable

ARCHIVES = (".gz", ".tgz", ".zip", ".tar", ".bz2", ".mat", ".data")
DAMAGE = (EOFError, ValueError, KeyError, tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile)
OFFLINE = "without network use data=digits, or data=PATH for a folder of images"
PACKAGED = {"FashionMNIST": Path("/usr/share/datasets/fashion-mnist")}  # by Debian's package dataset-fashion-mnist


def dataset_folder(
    name: str,
    spec: TorchvisionSet,
    shelf: Path,  # where datasets are cached
) -> Path:
    "The folder that torchvision's class takes as its root; downloaded if it is not there. Raises DataError, OSError."
    root = shelf / "torchvision" / spec.cls
    if root.is_dir():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root.with_name(f".{spec.cls}.lock")):
        if not root.is_dir():  # another process may have downloaded it while this one waited
            part = root.with_name(f"{spec.cls}.part")
            remove_unpacked(part)
            download(name, spec, part, root)
            part.rename(root)
    return root


def download(name: str, spec: TorchvisionSet, part: Path, root: Path) -> None:
    part.mkdir(exist_ok=True)
    try:
        if not unpack_packaged(spec.cls, part):
            log_progress(f"downloading {name} ({spec.about}) to {printable(root)}")
        with patient():
            for arguments in spec.splits.values():
                make(spec, part, download=True, **arguments)
    except (HTTPException, OSError, RuntimeError, *DAMAGE) as error:
        if getattr(error, "errno", None) in FULL:
            raise  # of the folder, not of the network
        reason = " ".join(printable(getattr(error, "reason", error)).split()) or type(error).__name__
        if isinstance(error, DAMAGE) or "corrupted" in reason or type(error) is OSError and not error.errno:  # bz2's
            shutil.rmtree(part)
            raise DataError(f"the download of {name} is damaged: {reason} (checksums are torchvision's); run the same "
                            f"command again, or {OFFLINE}") from error
        raise DataError(
            f"cannot download {name}: {reason}; run the same command again, or put what "
            f"torchvision.datasets.{spec.cls}(PATH, download=True) saves elsewhere at {printable(root)}; {OFFLINE}"
        ) from error


def make(spec: TorchvisionSet, root: Path, **arguments):
    "torchvision's dataset; where it can, one whose items are paths instead of decoded images."
    from torchvision import datasets

    cls = getattr(datasets, spec.cls)
    if "loader" in inspect.signature(cls).parameters:
        arguments["loader"] = str
    return cls(root, **arguments)


@contextmanager
def patient() -> Iterator[None]:
    "torchvision's downloads have no timeout, and draw a bar for each file wherever they run."
    from torchvision.datasets import utils

    timeout, bar = socket.getdefaulttimeout(), utils.tqdm
    socket.setdefaulttimeout(TIMEOUT)
    utils.tqdm = partial(bar, disable=quiet() or None)  # None: only on a terminal
    try:
        yield
    finally:
        socket.setdefaulttimeout(timeout)
        utils.tqdm = bar


def remove_unpacked(part: Path) -> None:
    "What an interrupted download unpacked may be half of it, and torchvision takes it for all; archives are verified."
    for path in part.rglob("*"):
        if path.is_file() and not path.name.endswith(ARCHIVES):
            path.unlink()
    for path in sorted(part.rglob("*"), reverse=True):  # a folder comes after what is in it
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def unpack_packaged(cls: str, part: Path) -> bool:
    "Whether a package of the system brings the files of `cls`, which are then unpacked to `part`."
    folder = PACKAGED.get(cls)
    if folder is None or not folder.is_dir():
        return False
    raw = part / cls / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for archive in folder.glob("*.gz"):
        with gzip.open(archive) as source, open(raw / archive.stem, "wb") as target:
            shutil.copyfileobj(source, target)
    return True
