"""The pages on which runs are browsed."""

from __future__ import annotations

import shlex
from urllib.parse import quote

from fasthtml import components as h

from cifar_fast.serve.browse import FIGURES, Compared, Run
from cifar_fast.utils.text import printable


def run_list(runs: list[Run]):
    if not runs:
        return (h.H1("Runs"), h.P("There is no run here yet."),
                h.P(h.Code("python -m cifar_fast recipe final"), " makes one."))
    good, bad = [r for r in runs if r.card], [r for r in runs if not r.card]
    unreadable = h.Ul(*(h.Li(h.Strong(printable(r.name)), h.P(printable(r.problem)), cls="card bad") for r in bad),
                      cls="cards")
    return (
        h.Div(h.H1("Runs"), h.P("The runs in this folder, the newest first.", cls="lead"), cls="opening"),
        h.Ul(*(run_card(r) for r in good), cls="cards runs"),
        h.Section(h.H2("Not readable"), unreadable, aria_label="Not readable") if bad else None,
    )


def run_card(run: Run):
    return h.Li(h.H2(h.A(printable(run.name), href=address(run))), facts(run), cls="card")


def facts(run: Run):
    "Accuracies, size and date of a run, as far as its card tells them."
    card = run.card
    training = [("training", f"{card.seconds.training:,.0f} s")] if card.seconds else []
    shown = [*card.facts(), *training, *([("date", card.date)] if card.date else [])]
    note = "Its epoch was selected on the test images, as its authors did." if card.selected_on_test else (
        "Measured on images held out of training." if card.split == "held-out" else None)
    return (h.Dl(*(h.Div(h.Dt(capitalized(k)), h.Dd(v)) for k, v in shown), cls="facts"),
            h.P(note, cls="quiet") if note else None)


def capitalized(label: str) -> str:
    return label[:1].upper() + label[1:]


def run_page(run: Run, figures: list[str], report: bool):
    to = address(run)
    return (
        h.P(h.A("All runs", href="/runs"), cls="back"),
        h.H1(printable(run.name)),
        h.Div(*facts(run), cls="card"),
        h.P(h.A("Read its report", href=f"{to}/report", cls="button")) if report else
        h.P("It has no report yet; ", h.Code(f"python -m cifar_fast report {shlex.quote(printable(run.name))}"),
            " writes one.", cls="quiet"),
        h.Div(*(figure(f"{to}/{n}", FIGURES[n]) for n in figures), cls="figures") if figures else
        h.P("It has no figures.", cls="quiet"),
    )


def compare(found: Compared, drawn: bool):
    parts = [h.H1("Compare")]
    if found.problem:
        parts.append(h.Div(h.P(h.Strong("The table could not be made. "), printable(found.problem)), cls="card bad"))
    if found.cells:
        head, *body = found.cells
        lines = h.Table(h.Thead(h.Tr(*(h.Th(name, scope="col") for name in head))),
                        h.Tbody(*(h.Tr(h.Th(printable(name), scope="row"), *(h.Td(cell) for cell in figures))
                                  for name, *figures in body)), cls="rows")
        parts.append(h.Div(h.Div(lines, cls="across", tabindex="0", role="region", aria_label="All runs"),
                           *(h.P(printable(note), cls="quiet") for note in found.notes), cls="card"))
    if drawn:
        parts.append(figure("/compare.png", "Accuracy against what it costs"))
    elif not found.problem:
        parts.append(h.P("There is no figure yet; ", h.Code("python -m cifar_fast compare"),
                         " draws the runs beside each other."))
    return parts


def figure(file: str, title: str):
    "A figure that opens at full size: on a phone its letters are small."
    return h.Figure(h.A(h.Img(src=file, alt=title), href=file), h.Figcaption(title), cls="card")


def address(run: Run) -> str:
    return f"/runs/{quote(run.name, safe='', errors='replace')}"
