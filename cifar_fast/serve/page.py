"""The frame of every page, and what pages share.

All text goes through FastHTML's tags, which escape it: names of files and classes can hold anything.
"""

from __future__ import annotations

from typing import Any

from fasthtml import components as h

from cifar_fast.export.base import BasePredictor
from cifar_fast.utils.text import printable


class Frame:
    "The frame of every page: head, navigation, and a footer that describes the model."

    def __init__(self, name: str, predictor: BasePredictor, private: bool):
        self.name, self.card = printable(name), predictor.card
        self.classes = len(predictor.vocab)
        self.privacy = ("Images stay on this machine and are not stored." if private else
                        "Images are sent to the machine that serves this page and are not stored.")

    def document(self, title: str, *body: Any):
        links = [h.A(text, href=to, aria_current="page" if text == title else None)
                 for text, to in (("Predict", "/"), ("Runs", "/runs"), ("Sweeps", "/sweeps"),
                                      ("Compare", "/compare"), ("Review", "/review"))]
        head = (
            h.Meta(charset="utf-8"),
            h.Title(f"{title} · {self.name} · cifar_fast"),
            h.Meta(name="viewport", content="width=device-width, initial-scale=1"),
            h.Meta(name="color-scheme", content="light dark"),
            h.Link(rel="icon", href="/static/icon.svg", type="image/svg+xml"),
            h.Link(rel="stylesheet", href="/static/style.css"),
            *(h.Script(src=f"/static/{file}", defer=True) for file in ("choose.js", "page.js")),
        )
        home = h.A(h.Span("cifar_fast", cls="brand"), h.Span(self.name, cls="model-name"), href="/", cls="home")
        return h.Html(
            h.Head(*head),
            h.Body(
                h.A("Skip to the content", href="#main", cls="skip"),
                h.Header(h.Div(home, h.Nav(*links, aria_label="Pages"), cls="wide")),
                h.Main(*body, id="main", cls="wide", tabindex="-1"),
                h.Footer(h.Div(h.P(self.facts()), h.P(self.privacy), cls="wide")),
            ),
            lang="en",
        )

    def facts(self) -> str:
        card, classes = self.card, f"{self.classes:,} classes"
        if not card:  # a .pkl has none
            return f"{self.name}, {classes}"
        params = f"{card.audit.params:,} parameters" if card.audit else ""
        accuracies = [f"{label} {value:.2%}" for label, value in card.accuracies()]
        return ", ".join(p for p in (f"{self.name}: {printable(card.arch)}", params, classes, *accuracies) if p)


def error(text: str):
    "Why a request failed; page.js announces the summary to screen readers."
    card = h.Div(h.P(h.Strong("That did not work. "), text), h.A("Back to the start", href="/"), cls="card bad")
    return h.Div(h.P(text, cls="summary"), card, cls="results")


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}\u00a0%"  # a no-break space
