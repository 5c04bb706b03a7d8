"""The pages that list and show sweeps; one that runs is loaded again every few seconds."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from fasthtml import components as h

from cifar_fast.serve.page_runs import figure
from cifar_fast.sweep.snapshot import NAME, Snapshot, SnapshotError, read_snapshot
from cifar_fast.sweep.table import FIGURES, MEANING, facts, lead, rows
from cifar_fast.utils.text import printable

REFRESH = 10  # seconds


def list_sweeps(folder: Path, inside) -> list[tuple[str, Snapshot | None, str]]:
    "(name, snapshot or None, problem) of each in `folder`, the newest first; `inside` as `browse.inside`."
    found = []
    for path in sorted(folder.glob(f"*/{NAME}")):
        if not inside(folder, path):
            continue
        try:
            found.append((path.parent.name, read_snapshot(path.parent), ""))
        except SnapshotError as e:
            found.append((path.parent.name, None, str(e).replace(f"{folder}/", "")))
    return sorted(found, key=lambda entry: -(entry[1].updated if entry[1] else 0))


def sweep_list(sweeps: list[tuple[str, Snapshot | None, str]]):
    if not sweeps:
        return (h.H1("Sweeps"), h.P("There are no sweeps in this folder yet."),
                h.P(h.Code("python -m cifar_fast sweep final lr=0.01..0.1:log valid=5000"), " starts one."))
    cards = [h.Li(h.H2(h.A(printable(name), href=address(name))), described(snapshot), cls="card") if snapshot else
             h.Li(h.Strong(printable(name)), h.P(printable(problem)), cls="card bad")
             for name, snapshot, problem in sweeps]
    return (h.Div(h.H1("Sweeps"), h.P("Searches over settings, the newest first.", cls="lead"), cls="opening"),
            h.Ul(*cards, cls="cards runs"))


def described(snapshot: Snapshot):
    cells = h.Dl(*(h.Div(h.Dt(label[:1].upper() + label[1:]), h.Dd(value)) for label, value in facts(snapshot)),
                 cls="facts")
    return cells, h.P(printable(lead(snapshot)), cls="quiet")


def sweep_page(name: str, snapshot: Snapshot, figures: list[str], report: bool):
    head, *body = rows(snapshot)
    table = h.Table(h.Thead(h.Tr(*(h.Th(printable(cell), scope="col") for cell in head))),
                    h.Tbody(*(h.Tr(h.Th(printable(first), scope="row"), *(h.Td(printable(cell)) for cell in cells))
                              for first, *cells in body)), cls="rows")
    to = address(name)
    return (
        h.P(h.A("All sweeps", href="/sweeps"), cls="back"),
        h.H1(printable(name)),
        h.Div(*described(snapshot), cls="card"),
        h.P(f"It is running; this page reloads every {REFRESH} seconds.", cls="quiet") if snapshot.runs else None,
        h.P(h.A("Open the report", href=f"{to}/report", cls="button")) if report else None,
        h.Div(*(figure(f"{to}/{n}", FIGURES[n]) for n in figures), cls="figures") if figures else None,
        h.Div(h.Div(table, cls="across", tabindex="0", role="region", aria_label="All trials"),
              h.P(MEANING, cls="quiet"), cls="card"),
    )


def address(name: str) -> str:
    return f"/sweeps/{quote(name, safe='', errors='replace')}"
