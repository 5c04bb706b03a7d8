"""FILE.shards, beside FILE while it is made: what was listed, what was asked for, and the shards that are done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cifar_fast.export.bulk.job import BulkError, Job
from cifar_fast.utils.files import TEMPORARY, remove_temporaries, replace_folder, with_path_in_error, write_text

VERSION = 1
MANIFEST, LISTING = "manifest.json", "listing"


@dataclass(frozen=True)
class Manifest:
    "What the shards of a folder were made of; others are not mixed with them."

    images: int
    listing_sha256: str
    weights_sha256: str
    settings: dict
    shard: int  # images a shard
    version: int = VERSION

    def differences(self, now: Manifest) -> list[str]:
        "Each as 'what: then, now'."
        result = [f"{key}: {value} then, {now.settings.get(key)} now" for key, value in self.settings.items()
                  if value != now.settings.get(key)]
        if self.weights_sha256 != now.weights_sha256:
            result.append(f"other weights: sha256 {self.weights_sha256[:12]} then, {now.weights_sha256[:12]} now")
        if self.images != now.images:
            result.append(f"images: {self.images:,} then, {now.images:,} now")
        elif self.listing_sha256 != now.listing_sha256:
            result.append(f"other names among the {self.images:,} images")
        result += [f"{name}: {then} then, {is_now} now" for name, then, is_now in (
            ("images a shard", self.shard, now.shard), ("format", self.version, now.version)) if then != is_now]
        return result


class ShardFolder:
    "Used as a context, in which this process alone may write here."

    def __init__(self, out: Path):
        self.out, self.path = out, out.with_name(f"{out.name}.shards")
        self.lock = FileLock(out.with_name(f".{out.name}.lock"))
        self.images, self.shard = 0, 1  # in all, and of a shard
        self.offsets = [0]  # in the listing, of the beginning of each shard and the end of the last

    def __enter__(self):
        try:
            with with_path_in_error(self.out):
                self.out.parent.mkdir(parents=True, exist_ok=True)
                self.lock.acquire(timeout=0)
        except Timeout:
            raise BulkError(f"another process is writing {self.out} and was left alone; wait for it, or name another "
                            f"--out") from None
        remove_temporaries(self.out.parent, self.path.name)
        remove_temporaries(self.out.parent, self.out.name)
        return self

    def __exit__(self, *exc):
        if self.path.is_dir():
            remove_temporaries(self.path)
        else:
            Path(self.lock.lock_file).unlink(missing_ok=True)
        self.lock.release()

    def begin(self, job: Job, sources: Iterable[str | Path], shard: int, restart: bool) -> None:
        "List the images; go on with the shards that are there, or begin. Raises BulkError where those do not fit."
        if self.out.is_dir():
            raise BulkError(f"{self.out} is a folder; name a file")
        if self.out.exists() and not self.path.exists() and not restart:
            raise BulkError(f"{self.out} exists already; name another --out, or replace it: --restart")
        with with_path_in_error(self.path):
            folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=TEMPORARY, dir=self.out.parent))
            try:
                (new := folder / "new").mkdir()
                self.images, digest, self.offsets = write_listing(new / LISTING, sources, shard)
                self.shard, now = shard, Manifest(self.images, digest, job.weights_sha256, job.settings, shard)
                if self.path.exists() and not restart:
                    self.check(now)
                elif self.images:
                    write_text(new / MANIFEST, json.dumps(asdict(now), indent=1))
                    replace_folder(new, self.path, folder / "former")
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def check(self, now: Manifest) -> None:
        try:
            then = Manifest(**json.loads((self.path / MANIFEST).read_text("utf-8")))
        except (OSError, ValueError, TypeError) as e:
            raise BulkError(f"{self.path} is not what was begun here ({e}); remove it, or begin anew: "
                            f"--restart") from None
        if different := then.differences(now):
            raise BulkError(f"{self.path} does not fit, {'; '.join(different)}. Restore that and go on, or begin anew: "
                            f"--restart; or name another --out")

    # ------------------------------------------------------------ shards

    @property
    def shards(self) -> list[Path]:
        return [self.path / f"{i:06}.parquet" for i in range(len(self.offsets) - 1)]

    def done(self) -> set[int]:
        return {i for i, path in enumerate(self.shards) if path.exists()}

    def count(self, shards: set[int]) -> int:
        "Images of these shards."
        return sum(min(self.shard, self.images - i * self.shard) for i in shards)

    def sources(self, shard: int) -> list[str | Path]:
        "Its slice of the listing."
        start, end = self.offsets[shard], self.offsets[shard + 1]
        with open(self.path / LISTING, "rb") as file:
            file.seek(start)
            names = [os.fsdecode(name) for name in file.read(end - start).split(b"\0")[:-1]]
        return [name if "://" in name else Path(name) for name in names]

    def remove(self) -> None:
        "By a rename first: half of a folder must not look like one to go on with."
        gone = self.path.with_name(f".{self.path.name}.done{TEMPORARY}")
        os.replace(self.path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def write_listing(path: Path, sources: Iterable[str | Path], shard: int) -> tuple[int, str, list[int]]:
    "Write a name and a zero byte for each image; their number, the sha256, and where each shard begins and ends."
    count, digest, offsets = 0, hashlib.sha256(), [0]
    with open(path, "wb") as file:
        for names in chunks(sources, shard):
            content = b"".join(os.fsencode(name) + b"\0" for name in names)
            file.write(content)
            digest.update(content)
            count += len(names)
            offsets.append(offsets[-1] + len(content))
        file.flush()
        os.fsync(file.fileno())
    return count, digest.hexdigest(), offsets


def chunks(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while part := [item for _, item in zip(range(size), items, strict=False)]:
        yield part
