"""Images out of a request: limited in number and bytes while they arrive, in memory only."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

MAX_IMAGE = 20 * 2**20  # bytes
MAX_IMAGES = 32  # of a request
MAX_REQUEST = 128 * 2**20  # bytes of the images of a request
MAX_HELD = 512 * 2**20  # bytes of the images of all requests under way
MAX_DRAINED = 2**30  # bytes that are still read of a refused request
TIMEOUT = 120  # seconds that a request may take to arrive

TOO_LARGE = f"is larger than {MAX_IMAGE // 2**20} MB, the limit for an image"


@dataclass(frozen=True)
class Upload:
    "One file of a request; `error` says why its content was not kept."

    name: str  # as the browser sent it
    content: BinaryIO
    error: str | None = None


class LimitedParser(MultiPartParser):
    "Starlette's parser, which limits the number of files but not their bytes, and writes those over 1 MB to disk."

    spool_max_size = math.inf

    def __init__(self, headers, stream, reader: UploadReader):
        super().__init__(headers, stream, max_files=math.inf, max_fields=8, max_part_size=1024)
        self.reader, self.held, self.size = reader, 0, 0  # bytes: of the request, of the current part
        self.too_large: set[UploadFile] = set()

    def on_headers_finished(self):
        super().on_headers_finished()
        self.size = 0
        if self._current_files > MAX_IMAGES:
            raise HTTPException(413, f"A request may have {MAX_IMAGES} images at most. Send fewer at a time.")

    def on_part_data(self, data, start, end):
        file = self._current_part.file
        if file is not None:
            self.size += end - start
            if self.size > MAX_IMAGE:
                self.too_large.add(file)
                return  # the other images of the request are classified all the same
            self.hold(end - start)
        super().on_part_data(data, start, end)

    def hold(self, size: int) -> None:
        if self.held + size > MAX_REQUEST:
            raise HTTPException(413, f"The images of a request may have {MAX_REQUEST // 2**20} MB together. "
                                     f"Send fewer at a time.")
        if self.reader.held + size > MAX_HELD:
            raise HTTPException(503, "The server is busy with other images. Try again in a moment.",
                                {"Retry-After": "5"})
        self.held += size
        self.reader.held += size


class UploadReader:
    "Reads the images of requests; counts the bytes that all requests under way hold."

    def __init__(self):
        self.held = 0  # bytes

    @asynccontextmanager
    async def read(self, request: Request):
        "The list of Uploads of a request, held in memory inside the `with`. Raises HTTPException."
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise HTTPException(415, "Images are sent with the form of this page (multipart/form-data).")
        parser = LimitedParser(request.headers, request.stream(), self)
        try:
            form = await receive(parser)
            try:
                files = [f for _, f in form.multi_items() if getattr(f, "filename", None)]
                yield [Upload(f.filename, f.file, TOO_LARGE if f in parser.too_large else None) for f in files]
            finally:
                await form.close()
        finally:
            self.held -= parser.held


async def receive(parser: LimitedParser):
    "The form data of a request. Raises HTTPException, after the rest of a refused request has been read."
    try:
        async with asyncio.timeout(TIMEOUT):
            try:
                return await parser.parse()
            except HTTPException:
                await drain(parser.stream)
                raise
    except MultiPartException:
        raise HTTPException(400, "The upload is damaged. Send the images again.") from None
    except (TimeoutError, ClientDisconnect):
        raise HTTPException(408, f"The upload took longer than {TIMEOUT} seconds. Send the images again.") from None


async def drain(stream) -> None:
    "Read what still arrives: a browser reads no response before it has sent its request."
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size > MAX_DRAINED:
            return
