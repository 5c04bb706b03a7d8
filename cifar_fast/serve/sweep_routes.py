"""The routes of sweeps: their list, one of them, and its files, looked up by listing the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from cifar_fast.serve import guard, page_sweeps
from cifar_fast.serve.browse import existing, inside
from cifar_fast.sweep.table import FIGURES, REPORT
from cifar_fast.utils.text import printable


def routes(folder: Path, html: Callable[..., Response]) -> list[Route]:
    "Of the sweeps in `folder`; `html` makes a page of a title and its parts."

    def all_sweeps(request: Request) -> Response:
        sweeps = page_sweeps.list_sweeps(folder, inside)
        runs = any(snapshot and snapshot.runs for _, snapshot, _ in sweeps)
        return html("Sweeps", *page_sweeps.sweep_list(sweeps), refresh=page_sweeps.REFRESH if runs else None)

    def find(request: Request):
        name = request.path_params["sweep"]
        found = next((s for n, s, _ in page_sweeps.list_sweeps(folder, inside) if n == name and s), None)
        if found is None:
            raise HTTPException(404, "There is no sweep of this name. The page Sweeps lists all sweeps.")
        return name, found

    def one_sweep(request: Request) -> Response:
        name, snapshot = find(request)
        figures = [n for n in FIGURES if existing(folder, folder / name / n)]
        report = existing(folder, folder / name / REPORT) is not None
        return html(printable(name), *page_sweeps.sweep_page(name, snapshot, figures, report),
                    refresh=page_sweeps.REFRESH if snapshot.runs else None)

    def sweep_file(request: Request) -> Response:
        (name, _), file = find(request), request.path_params["file"]
        known = REPORT if file == "report" else next((n for n in FIGURES if n == file), None)
        path = known and existing(folder, folder / name / known)
        if not path:
            raise HTTPException(404, f"No such file was saved for {printable(name)}.")
        if path.suffix == ".html":
            return FileResponse(path, headers={"content-security-policy": guard.REPORT})
        return FileResponse(path, media_type="image/png")

    return [Route("/sweeps", all_sweeps), Route("/sweeps/{sweep}", one_sweep),
            Route("/sweeps/{sweep}/{file}", sweep_file)]
