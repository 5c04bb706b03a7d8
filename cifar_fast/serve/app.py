"""The routes: Starlette's, with FastHTML's tags for the pages.

FastHTML's own routes read the whole body of a request before its handler is called, however large it is, and its
default headers load scripts from a CDN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from fasthtml.common import to_xml
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from cifar_fast.export.base import BasePredictor
from cifar_fast.serve import browse, guard, page, page_predict, page_runs, review_routes, sweep_routes, upload
from cifar_fast.serve.classify import Classifier
from cifar_fast.serve.review import Review
from cifar_fast.utils.cores import DECODERS
from cifar_fast.utils.text import printable

AT_ONCE = DECODERS
"Requests whose images are decoded at the same time."

STATIC = Path(__file__).parent / "static"


def create_app(
    predictor: BasePredictor,
    name: str,  # of the run, as it is shown
    folder: Path,  # whose runs can be browsed
    host: str = "127.0.0.1",  # on which the server listens
):
    "The ASGI application."
    classifier, reader = Classifier(predictor), upload.UploadReader()
    limiter = anyio.CapacityLimiter(AT_ONCE)
    vocab = [printable(name) for name in predictor.vocab]
    private = guard.is_loopback(host)
    frame = page.Frame(name, predictor, private)

    def html(title: str, *body: Any, status: int = 200, refresh: int | None = None) -> HTMLResponse:
        return HTMLResponse(to_xml(frame.document(title, *body), indent=False), status,
                            {"refresh": str(refresh)} if refresh else None)

    def home(request: Request) -> Response:
        return html("Predict", *page_predict.predict(predictor))

    async def predict(request: Request) -> Response:
        async with reader.read(request) as uploads:
            if not uploads:
                raise HTTPException(400, "No image was chosen. Choose one or several first.")
            return await until_disconnect(request, partial(classify, uploads, wants_part(request)), limiter)

    def classify(uploads: list[upload.Upload], part: bool) -> Response:
        "A page, or the results alone for page.js, which asks for Grad-CAM once they are shown."
        results = classifier.classify(uploads, anyio.from_thread.check_cancelled, explain=not part)
        status = 200 if any(r.error is None for r in results) else 422
        content = page_predict.results(results, vocab)
        if part:
            return HTMLResponse(to_xml(content, indent=False), status)
        return html("Predict", *page_predict.predict(predictor, content), status=status)

    async def gradcam(request: Request) -> Response:
        async with reader.read(request) as uploads:
            return await until_disconnect(request, partial(explain, uploads), limiter)

    def explain(uploads: list[upload.Upload]) -> Response:
        results = classifier.classify(uploads, anyio.from_thread.check_cancelled)
        return HTMLResponse(to_xml(page_predict.maps(results), indent=False))

    def all_runs(request: Request) -> Response:
        return html("Runs", *page_runs.run_list(browse.runs(folder)))

    def one_run(request: Request) -> Response:
        run = find_run(request)
        figures = [n for n in browse.FIGURES if browse.run_file(folder, run, n)]
        report = browse.run_file(folder, run, browse.REPORT) is not None
        return html(printable(run.name), *page_runs.run_page(run, figures, report, browse.argument(folder, run)))

    def run_file(request: Request) -> Response:
        run, file = find_run(request), request.path_params["file"]
        path = browse.run_file(folder, run, browse.REPORT if file == "report" else file)
        if path is None:
            raise HTTPException(404, f"No such file was saved for {printable(run.name)}.")
        if path.suffix == ".html":
            return FileResponse(path, headers={"content-security-policy": guard.REPORT})
        return FileResponse(path, media_type="image/png")

    def find_run(request: Request) -> browse.Run:
        run = browse.find(folder, request.path_params["run"])
        if run is None:
            raise HTTPException(404, "There is no run of this name. The page Runs lists all runs.")
        return run

    def compare(request: Request) -> Response:
        return html("Compare", *page_runs.compare(browse.compared(folder), browse.comparison(folder) is not None))

    def comparison(request: Request) -> Response:
        path = browse.comparison(folder)
        if path is None:
            raise HTTPException(404, "There is no comparison yet.")
        return FileResponse(path, media_type="image/png")

    def icon(request: Request) -> Response:
        # A report is sandboxed, so even our icon comes from another site for it.
        return FileResponse(STATIC / "icon.svg", headers={"cross-origin-resource-policy": "cross-origin"})

    def failed(request: Request, error: HTTPException) -> Response:
        message = page.error("There is no such page." if error.detail == "Not Found" else error.detail)
        if wants_part(request):
            return HTMLResponse(to_xml(message, indent=False), error.status_code, error.headers)
        response = html("Error", message, status=error.status_code)
        response.headers.update(error.headers or {})
        return response

    app = Starlette(exception_handlers={HTTPException: failed}, routes=[
        Route("/", home),
        Route("/predict", predict, methods=["POST"]),
        Route("/gradcam", gradcam, methods=["POST"]),
        Route("/predict", home),  # the address of the results, without scripts
        Route("/runs", all_runs),
        Route("/runs/{run}", one_run),
        Route("/runs/{run}/{file}", run_file),
        Route("/compare", compare),
        Route("/compare.png", comparison),
        *sweep_routes.routes(folder / "sweeps", html),
        *review_routes.routes(Review(classifier, predictor.card, folder / name), private, html, limiter),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/favicon.ico", icon),  # for a report, which names no icon
    ])
    return guard.Guard(app, host)


def wants_part(request: Request) -> bool:
    "Whether page.js sent the request, which puts the results into the page that is shown."
    return "x-part" in request.headers


async def until_disconnect(request: Request, function: Callable[[], Response], limiter) -> Response:
    """The response of `function`, run in a thread when `limiter` has a turn; given up when the client disconnects.

    In the thread `anyio.from_thread.check_cancelled` then raises. The request must have been read to its end.
    """
    response = Response(status_code=499)  # which nobody receives

    async def watch():
        while (await request.receive())["type"] != "http.disconnect":
            pass
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        response = await anyio.to_thread.run_sync(function, limiter=limiter)
        group.cancel_scope.cancel()
    return response
