"""report.html of a sweep: one self-contained file in the style of a run's report."""

from __future__ import annotations

import base64
from pathlib import Path

from fastcore.xml import (
    H1,
    H2,
    A,
    Body,
    Code,
    Dd,
    Div,
    Dl,
    Dt,
    Figcaption,
    Figure,
    Footer,
    Head,
    Header,
    Html,
    Img,
    Main,
    Meta,
    Nav,
    P,
    Pre,
    Section,
    Style,
    Title,
    to_xml,
)

from cifar_fast.reporting.report.page import STYLE, anchor, is_wide, table
from cifar_fast.sweep.figures import draw
from cifar_fast.sweep.snapshot import Snapshot
from cifar_fast.sweep.table import FIGURES, MEANING, REPORT, command, facts, lead, rows
from cifar_fast.utils.files import write_text


def rebuild(snapshot: Snapshot, folder: Path) -> None:
    "Draw the figures and write the report."
    write_text(folder / REPORT, page(snapshot, folder, draw(snapshot, folder)))


def page(snapshot: Snapshot, folder: Path, figures: list[str]) -> str:
    sections = [(name.removesuffix(".png").capitalize(), [figure_of(folder / name, FIGURES[name])]) for name in figures]
    sections += [("Trials", [P(MEANING, cls="dim"), table(rows(snapshot), words=True)]),
                 ("Sweep", [table([["setting", "searched"], *([k, Code(v)] for k, v in snapshot.space.items())],
                                  words=True), P("Again:"), Pre(Code(command(snapshot)))])]
    head = Head(Meta(charset="utf-8"), Meta(name="viewport", content="width=device-width, initial-scale=1"),
                Title(f"{snapshot.name}: report of a sweep"), Style(STYLE))
    links = Nav(*(A(heading, href=f"#{anchor(heading)}") for heading, _ in sections), aria_label="Sections")
    top = Header(H1(snapshot.name), P(lead(snapshot), cls="dim"),
                 Dl(*(Div(Dt(label), Dd(value)) for label, value in facts(snapshot))), links)
    body = [Section(H2(heading, id=anchor(heading)), *parts) for heading, parts in sections]
    end = Footer(P("Made by cifar_fast."))
    return to_xml(Html(head, Body(top, Main(*body), end), lang="en"), indent=False)


def figure_of(path: Path, says: str):
    image = Img(src=f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", alt=says)
    if is_wide(path):
        image = Div(image, cls="across", tabindex="0", role="group", aria_label=says)
    return Figure(image, Figcaption(says))
