"""The pages that list, show and compare runs."""

from __future__ import annotations

import shlex
from urllib.parse import quote

from fasthtml import components as h

from cifar_fast.serve.browse import FIGURES, Compared, Run
from cifar_fast.utils.text import printable


def run_list(runs: list[Run]):
    if not runs:
        return (h.H1("Runs"), h.P("There are no runs in this folder yet."),
                h.P(h.Code("python -m cifar_fast recipe final"), " trains and exports one."))
    good, bad = [r for r in runs if r.card], [r for r in runs if not r.card]
    unreadable = h.Ul(*(h.Li(h.Strong(printable(r.name)), h.P(printable(r.problem)), cls="card bad") for r in bad),
                      cls="cards")
    return (
        h.Div(h.H1("Runs"), h.P("All runs in the folder of this model, newest first.", cls="lead"), cls="opening"),
        h.Ul(*(run_card(r) for r in good), cls="cards runs"),
        h.Section(h.H2("Unreadable"), unreadable, aria_label="Unreadable") if bad else None,
    )


def run_card(run: Run):
    return h.Li(h.H2(h.A(printable(run.name), href=address(run))), facts(run), cls="card")


def facts(run: Run):
    "Accuracies, size and date of a run, as far as its card has them."
    card = run.card
    training = [("training", f"{card.seconds.training:,.0f} s")] if card.seconds else []
    cells = [*card.facts(), *training, *([("date", card.date)] if card.date else [])]
    note = "The epoch was selected on the test images, as its authors did." if card.selected_on_test else (
        "Measured on held-out images." if card.split == "held-out" else None)
    table = h.Dl(*(h.Div(h.Dt(capitalized(k)), h.Dd(printable(v))) for k, v in cells), cls="facts")
    return table, h.P(note, cls="quiet") if note else None


def capitalized(label: str) -> str:
    return label[:1].upper() + label[1:]


def run_page(run: Run, figures: list[str], report: bool, argument: str):
    "`argument` is the run as a command takes it."
    to = address(run)
    return (
        h.P(h.A("All runs", href="/runs"), cls="back"),
        h.H1(printable(run.name)),
        h.Div(*facts(run), cls="card"),
        h.P(h.A("Open the report", href=f"{to}/report", cls="button")) if report else
        h.P("There is no report yet; ", h.Code(f"python -m cifar_fast report {shlex.quote(argument)}"),
            " creates it.", cls="quiet"),
        h.Div(*(figure(f"{to}/{n}", FIGURES[n]) for n in figures), cls="figures") if figures else
        h.P("No figures were saved for this run.", cls="quiet"),
    )


def compare(compared: Compared, figure_exists: bool):
    parts = [h.H1("Compare")]
    if compared.problem:
        parts.append(h.Div(h.P(h.Strong("The table cannot be shown. "), printable(compared.problem)), cls="card bad"))
    if compared.cells:
        head, *body = compared.cells
        lines = h.Table(h.Thead(h.Tr(*(h.Th(name, scope="col") for name in head))),
                        h.Tbody(*(h.Tr(h.Th(printable(name), scope="row"), *(h.Td(printable(cell)) for cell in cells))
                                  for name, *cells in body)), cls="rows")
        parts.append(h.Div(h.Div(lines, cls="across", tabindex="0", role="region", aria_label="All runs"),
                           *(h.P(printable(note), cls="quiet") for note in compared.notes), cls="card"))
    if figure_exists:
        parts.append(figure("/compare.png", "Accuracy against cost"))
    elif not compared.problem:
        parts.append(h.P("There is no figure yet; ", h.Code("python -m cifar_fast compare"),
                         " creates it."))
    if compared.about_runs:
        parts.append(h.Details(h.Summary("Settings and intervals of each run"),
                               *(h.P(printable(note), cls="quiet") for note in compared.about_runs), cls="card"))
    return parts


def figure(file: str, title: str):
    "A figure that links to its full size, as its text is small on a phone."
    return h.Figure(h.A(h.Img(src=file, alt=title), href=file), h.Figcaption(title), cls="card")


def address(run: Run) -> str:
    return f"/runs/{quote(run.name, safe='', errors='replace')}"
