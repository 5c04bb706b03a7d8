"""The routes of the review: its page, and what review.js requests (JSON, and the images of the dataset)."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from typing import Any

import anyio
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from cifar_fast.data.errors import ImageError
from cifar_fast.data.originals import as_png, media_type, png
from cifar_fast.serve import page_review
from cifar_fast.serve.decisions import ReviewError
from cifar_fast.serve.review import Review
from cifar_fast.utils.errors import file_error

MOST_BODY = 4096  # bytes of a request
TIMEOUT = 20  # seconds that it may take to arrive
TOKEN = "x-review-token"

ELSEWHERE = ("The review shows all images of the dataset and changes labels, so it is for this machine alone. Start "
             "serve without --host; from elsewhere, ssh -L 8000:127.0.0.1:8000 to this machine.")


def routes(
    review: Review,
    private: bool,  # whether only this machine can reach the server
    html: Callable[..., Response],  # (title, *body) → a page
    limiter: anyio.CapacityLimiter,  # of images decoded at the same time
) -> list[Route]:
    token = secrets.token_urlsafe(32)  # of this server's own page: the guard trusts programs that are no browser

    def page(request: Request) -> Response:
        if not private:
            return html("Review", *page_review.refusal(ELSEWHERE), status=403)
        return html("Review", *page_review.page(review, token))

    def state(request: Request) -> Response:
        require_private()
        review.open()
        return JSONResponse(review.state(request.query_params.get("split", "all")))

    async def decide(request: Request) -> Response:
        body = await authorized(request)
        row, label = body.get("row"), body.get("answer")
        if type(row) is not int or type(label) is not int:
            raise HTTPException(400, "Send a row and an answer (a class), both integers.")
        return await changed(lambda: review.decide(row, label), body)

    async def undo(request: Request) -> Response:
        return await changed(review.undo, await authorized(request))

    async def changed(function: Callable[[], int | None], body: dict) -> Response:
        "The next state, or why nothing was saved."
        def change() -> Response:
            try:
                first = function()
            except ReviewError as e:
                return JSONResponse({"problem": str(e)}, 400)
            except OSError as e:
                return JSONResponse({"problem": f"Not saved: {file_error(e) or e}"}, 500)
            return JSONResponse(review.state(str(body.get("split", "all")), first))

        return await run_in_threadpool(change)

    async def original(request: Request) -> Response:
        require_private()
        return await anyio.to_thread.run_sync(original_image, request.path_params["row"], limiter=limiter)

    def original_image(row: int) -> Response:
        try:
            path = review.original(row)
            kind = media_type(path)
            return FileResponse(path, media_type=kind) if kind else Response(as_png(path), media_type="image/png")
        except (ReviewError, ImageError) as e:
            raise HTTPException(404, str(e)) from None

    def pixels(request: Request) -> Response:
        require_private()
        try:
            return Response(png(Image.fromarray(review.pixels(request.path_params["row"]))), media_type="image/png")
        except ReviewError as e:
            raise HTTPException(404, str(e)) from None

    async def authorized(request: Request) -> dict:
        require_private()
        if not secrets.compare_digest(request.headers.get(TOKEN, "").encode(), token.encode()):
            raise HTTPException(403, "The server was started again since this page was opened. Reload the page.")
        return await read_json(request)

    def require_private() -> None:
        if not private:
            raise HTTPException(403, ELSEWHERE)

    return [
        Route("/review", page),
        Route("/review/state", state),
        Route("/review/answer", decide, methods=["POST"]),
        Route("/review/undo", undo, methods=["POST"]),
        Route("/review/original/{row:int}", original),
        Route("/review/seen/{row:int}", pixels),
    ]


async def read_json(request: Request) -> dict[str, Any]:
    "The JSON object of a request. Raises HTTPException."
    body = b""
    try:
        async with asyncio.timeout(TIMEOUT):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BODY:
                    raise HTTPException(413, f"A request may have {MOST_BODY:,} bytes at most.")
        values = json.loads(body)
    except (TimeoutError, ClientDisconnect):
        raise HTTPException(408, "The request did not arrive in time. Try again.") from None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise HTTPException(400, "Send a JSON object.")
    return values
