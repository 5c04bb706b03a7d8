"""Images out of a request: counted and weighed while they arrive, kept in memory alone."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

MAX_IMAGE = 20 * 2**20  # bytes
MAX_IMAGES = 32  # a request
MAX_REQUEST = 128 * 2**20  # bytes of its images together
MAX_HELD = 512 * 2**20  # bytes of all requests that are being answered
MAX_DRAINED = 2**30  # bytes of a refused request that are read and thrown away
PATIENCE = 120  # seconds that a request may take to arrive

Given = tuple[str, bytes | None, str | None]
"The name of an image, its content, and why it was not taken where it has none."

TOO_LARGE = f"is larger than {MAX_IMAGE // 2**20} MB, which is the most an image may have here"


class Images(MultiPartParser):
    "Starlette's parser with our limits; it would count files, but weigh none, and put those over 1 MB on the disk."

    spool_max_size = math.inf

    def __init__(self, headers, stream, uploads: Uploads):
        super().__init__(headers, stream, max_files=math.inf, max_fields=8, max_part_size=1024)
        self.uploads, self.count, self.size, self.taken = uploads, 0, 0, 0

    def on_headers_finished(self):
        super().on_headers_finished()
        self.size = 0
        self.count += self._current_part.file is not None
        if self.count > MAX_IMAGES:
            raise HTTPException(413, f"These are more than {MAX_IMAGES} images. Send them a few at a time.")

    def on_part_data(self, data, start, end):
        if self._current_part.file is not None:
            self.size += end - start
            if self.size > MAX_IMAGE:
                self._current_part.file.too_large = True
                return  # thrown away: the images beside it are answered all the same
            self.take(end - start)
        super().on_part_data(data, start, end)

    def take(self, size: int) -> None:
        if self.taken + size > MAX_REQUEST:
            raise HTTPException(413, f"These images have more than {MAX_REQUEST // 2**20} MB together. "
                                     f"Send them a few at a time.")
        if self.uploads.held + size > MAX_HELD:
            raise HTTPException(503, "Too many images are being looked at just now. Try again in a moment.",
                                {"Retry-After": "5"})
        self.taken += size
        self.uploads.held += size


class Uploads:
    "All that requests have brought and that is not answered yet."

    def __init__(self):
        self.held = 0  # bytes

    @asynccontextmanager
    async def images(self, request: Request):
        "A list of what was `Given`, held in memory while inside. Raises HTTPException."
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise HTTPException(415, "Images come here from the form of this page (multipart/form-data).")
        stream = request.stream()
        parser = Images(request.headers, stream, self)
        try:
            try:
                async with asyncio.timeout(PATIENCE):
                    try:
                        form = await parser.parse()
                    except HTTPException:
                        await drain(stream)
                        raise
            except MultiPartException:
                raise HTTPException(400, "The images arrived broken. Send them again.") from None
            except (TimeoutError, ClientDisconnect):
                raise HTTPException(408, "The images did not arrive in time. Send them again.") from None
            yield [await taken(file) for _, file in form.multi_items() if getattr(file, "filename", "")]
        finally:
            self.held -= parser.taken


async def taken(file) -> Given:
    if getattr(file, "too_large", False):
        return file.filename, None, TOO_LARGE
    return file.filename, await file.read(), None


async def drain(stream) -> None:
    "Read what still comes: a browser that is sending does not look for the answer before it is done."
    seen = 0
    async for chunk in stream:
        seen += len(chunk)
        if seen > MAX_DRAINED:
            return
