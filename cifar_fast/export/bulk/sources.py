"""Where images of a bulk prediction come from: files here, and what pyarrow's file systems reach (s3://, gs://)."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import blake2b
from pathlib import Path

from cifar_fast.data.errors import ImageError
from cifar_fast.data.images import EXTENSIONS, MAX_BYTES
from cifar_fast.export.base import BasePredictor
from cifar_fast.export.bulk.job import BulkError
from cifar_fast.export.find_images import walk_images
from cifar_fast.utils.text import printable


def list_sources(patterns: Iterable[str], missing: list[str], closed: list[str]) -> Iterator[str | Path]:
    "Images in a stable order, as `walk_images`; a pattern with :// is a folder or file that pyarrow reads."
    patterns = list(patterns)
    if not any(map(is_uri, patterns)):
        yield from walk_images(patterns, missing, closed)
        return
    seen: set[bytes] = set()  # digests, which need less memory than names
    for source in of_each(patterns, missing, closed):
        if (digest := blake2b(os.fsencode(source), digest_size=16).digest()) not in seen:
            seen.add(digest)
            yield source


def of_each(patterns: list[str], missing: list[str], closed: list[str]) -> Iterator[str | Path]:
    "Those of one pattern after the other: an image comes again where several name it."
    for pattern in dict.fromkeys(patterns):
        if not is_uri(pattern):
            yield from walk_images([pattern], missing, closed)
            continue
        found = False
        for uri in list_uri(pattern):
            found = True
            yield uri
        if not found:
            missing.append(pattern)


def is_uri(source) -> bool:
    return isinstance(source, str) and "://" in source


def file_system(uri: str):
    "(pyarrow file system, path in it). Raises BulkError."
    from pyarrow import fs

    try:
        return fs.FileSystem.from_uri(uri)
    except (OSError, ValueError) as e:  # ArrowInvalid is a ValueError
        raise BulkError(f"{printable(uri)} cannot be opened: {printable(e)}; write s3://BUCKET/FOLDER, "
                        f"gs://BUCKET/FOLDER or file:///FOLDER") from None


@cache
def of_root(root: str):
    "The file system of scheme and bucket: opened once, since a client of S3 takes long to make."
    return file_system(root)[0]


def options(uri: str) -> str:
    "What pyarrow takes behind a question mark (?region=…&endpoint_override=…); '' without."
    before, mark, query = uri.partition("?")
    return "" if before.startswith("file:") else mark + query


def list_uri(uri: str) -> Iterator[str]:
    "URIs of the images at any depth, folder by folder. Raises BulkError."
    from pyarrow.fs import FileSelector, FileType

    system, start = file_system(uri)
    scheme, query = uri.partition("://")[0], options(uri)
    try:
        if system.get_file_info(start).type == FileType.File:
            yield f"{scheme}://{start}{query}"  # as those of a folder: unescaped, as `read_source` takes it
            return
        waiting = [start]
        while waiting:
            current = waiting.pop()
            here = sorted(system.get_file_info(FileSelector(current)), key=lambda info: info.path)
            here = [info for info in here if not info.base_name.startswith(".")]
            yield from (f"{scheme}://{info.path}{query}" for info in here if info.type == FileType.File
                        and f".{info.extension.lower()}" in EXTENSIONS)
            waiting += reversed([info.path for info in here if info.type == FileType.Directory])
    except FileNotFoundError:
        return
    except OSError as e:
        raise BulkError(f"{printable(uri)} cannot be listed: {printable(e)}") from None


class Named(io.BytesIO):
    "The content of a file, which knows the file's name: a message names it."

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


def read_source(model: BasePredictor, source: str | Path):
    "The image of a path or URI as the model sees it. Raises ImageError."
    if not is_uri(source):
        return model.read(source)
    query = options(source)
    scheme, _, path = source.removesuffix(query).partition("://")
    try:
        system = of_root(f"{scheme}://{path.partition('/')[0] or '/'}{query}")
        if (size := system.get_file_info(path).size or 0) > MAX_BYTES:
            raise ImageError(f"{printable(source)}: has {size:,} bytes, more than the {MAX_BYTES:,} allowed")
        with system.open_input_stream(path) as file:
            content = file.read()
    except OSError as e:
        raise ImageError(f"{printable(source)}: {e.strerror or printable(e)}") from e
    except (BulkError, ValueError) as e:  # a line of a list may have a scheme that nothing here reads
        raise ImageError(f"{printable(source)}: {printable(e)}") from e
    return model.read(Named(content, source))
