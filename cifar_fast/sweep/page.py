"""report.html of a sweep: one self-contained file in the style of a run's report."""

from __future__ import annotations

from pathlib import Path

from fastcore.xml import Code, P, Pre

from cifar_fast.reporting.report.document import document, figure
from cifar_fast.reporting.report.page import table
from cifar_fast.sweep.figures import draw
from cifar_fast.sweep.snapshot import Snapshot
from cifar_fast.sweep.storage import SQLITE
from cifar_fast.sweep.table import FIGURES, MEANING, REPORT, command, facts, lead, places, rows
from cifar_fast.utils.files import write_text


def rebuild(snapshot: Snapshot, folder: Path) -> None:
    "Draw the figures and write the report."
    write_text(folder / REPORT, page(snapshot, folder, draw(snapshot, folder)))


def page(snapshot: Snapshot, folder: Path, figures: list[str]) -> str:
    where = places(folder, shared=not (folder / SQLITE).exists())
    sections = [(name.removesuffix(".png").capitalize(), [figure(folder / name, FIGURES[name])]) for name in figures]
    sections += [("Trials", [P(MEANING, cls="dim"), table(rows(snapshot), words=True)]),
                 ("Sweep", [table([["setting", "searched"], *([k, Code(v)] for k, v in snapshot.space.items())],
                                  words=True), P("Again, or to resume:"), Pre(Code(command(snapshot, where)))])]
    return document(f"{snapshot.name}: report of a sweep", snapshot.name, lead(snapshot), facts(snapshot), sections,
                    P("Made by cifar_fast."))
