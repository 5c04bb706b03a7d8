"""The routes. Starlette's, with FastHTML's tags for the pages.

FastHTML's own routes read the whole body of any request before its handler is asked, however large; its default headers
load scripts from a CDN.
"""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
from fasthtml.common import to_xml
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from cifar_fast.export.predictor import Predictor
from cifar_fast.serve import browse, guard, page, page_predict, page_runs, upload
from cifar_fast.serve.looking import Looker
from cifar_fast.utils.text import printable

AT_ONCE = min(4, os.cpu_count() or 1)
"Requests whose images are read at the same time: one of 64 megapixels needs 0.7 GB."

STATIC = {"style.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


def create_app(
    exported: Predictor,
    name: str,  # of the run, as it is shown
    folder: Path,  # whose runs may be browsed
    host: str = "127.0.0.1",  # what the server listens on
):
    "The ASGI application."
    looker, uploads = Looker(exported), upload.Uploads()
    limiter = anyio.CapacityLimiter(AT_ONCE)
    static = {n: files(__package__).joinpath("static", n).read_bytes() for n in STATIC}
    vocab = [printable(name) for name in exported.vocab]
    frame = page.Frame(name, exported, private=guard.is_loopback(host))

    def html(title: str, *body: Any, status: int = 200) -> HTMLResponse:
        return HTMLResponse(to_xml(frame.document(title, *body), indent=False), status)

    def home(request: Request) -> Response:
        return html("Predict", *page_predict.predict())

    async def look(request: Request) -> Response:
        async with uploads.images(request) as given:
            if not given:
                raise HTTPException(400, "No image was chosen. Choose one or several first.")
            return await anyio.to_thread.run_sync(answer, given, wants_part(request), limiter=limiter)

    def answer(given: list[upload.Given], part: bool) -> Response:
        seen = looker.look(given)
        status = 200 if any(s.reason is None for s in seen) else 422
        found = page_predict.results(seen, vocab)
        if part:
            return HTMLResponse(to_xml(found, indent=False), status)
        return html("Predict", *page_predict.predict(found), status=status)

    def all_runs(request: Request) -> Response:
        return html("Runs", *page_runs.run_list(browse.runs(folder)))

    def one_run(request: Request) -> Response:
        run = wanted(request)
        figures = [n for n in browse.FIGURES if browse.run_file(folder, run, n)]
        report = browse.run_file(folder, run, browse.REPORT) is not None
        return html(printable(run.name), *page_runs.run_page(run, figures, report))

    def run_file(request: Request) -> Response:
        run, file = wanted(request), request.path_params["file"]
        file = browse.REPORT if file == "report" else file
        path = browse.run_file(folder, run, file)
        if path is None:
            raise HTTPException(404, f"{printable(run.name)} has no such file.")
        if file == browse.REPORT:
            return FileResponse(path, media_type="text/html; charset=utf-8",
                                headers={"content-security-policy": guard.REPORT})
        return FileResponse(path, media_type="image/png")

    def wanted(request: Request) -> browse.Run:
        run = browse.find(folder, request.path_params["run"])
        if run is None:
            raise HTTPException(404, "There is no run of this name; Runs lists all that there are.")
        return run

    def compare(request: Request) -> Response:
        return html("Compare", *page_runs.compare(browse.compared(folder), browse.comparison(folder) is not None))

    def comparison(request: Request) -> Response:
        path = browse.comparison(folder)
        if path is None:
            raise HTTPException(404, "There is no comparison yet.")
        return FileResponse(path, media_type="image/png")

    def asset(request: Request) -> Response:
        name = request.path_params.get("name", "icon.svg")
        if name not in static:
            raise HTTPException(404, "There is no such file.")
        # A report stands in a sandbox, so that even our icon is another site's to it.
        policy = {"cross-origin-resource-policy": "cross-origin"} if name == "icon.svg" else None
        return Response(static[name], media_type=STATIC[name], headers=policy)

    def failed(request: Request, error: HTTPException) -> Response:
        said = page.refused("There is no such page." if error.detail == "Not Found" else error.detail)
        if wants_part(request):
            return HTMLResponse(to_xml(said, indent=False), error.status_code, error.headers)
        response = html("Not possible", said, status=error.status_code)
        response.headers.update(error.headers or {})
        return response

    app = Starlette(exception_handlers={HTTPException: failed}, routes=[
        Route("/", home),
        Route("/predict", look, methods=["POST"]),
        Route("/predict", home),  # where the answer stood, without scripts
        Route("/runs", all_runs),
        Route("/runs/{run}", one_run),
        Route("/runs/{run}/{file}", run_file),
        Route("/compare", compare),
        Route("/compare.png", comparison),
        Route("/static/{name}", asset),
        Route("/favicon.ico", asset),  # browsers ask for it where a report names no icon
    ])
    return guard.Guard(app, host)


def wants_part(request: Request) -> bool:
    "Whether page.js asks, which puts the answer into the page that is there."
    return "x-part" in request.headers
