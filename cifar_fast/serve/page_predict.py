"""The page that takes images and shows what the net sees in them."""

from __future__ import annotations

from fasthtml import components as h

from cifar_fast.data.images import EXTENSIONS
from cifar_fast.serve.looking import Seen, data_uri, overlay, place
from cifar_fast.serve.page import percent
from cifar_fast.serve.upload import MAX_IMAGE, MAX_REQUEST, TOO_LARGE

CLASSES = 50
"Lines of an image's table: an export may have thousands of classes."


def predict(found=None):
    "The form, and below it what was found; it works without scripts too."
    accept = ",".join(["image/*", *sorted(EXTENSIONS)])
    return (
        h.Div(
            h.H1("What does the net see?"),
            h.P("Give it images of any kind and size. It looks at their centre square, 32 × 32 pixels large.",
                cls="lead"),
            cls="opening",
        ),
        h.Form(
            h.Label("Images", fr="images", cls="heard"),
            h.Input(type="file", id="images", name="images", accept=accept, multiple=True, required=True,
                    aria_describedby="how"),
            h.Button("Look at them", type="submit", cls="primary"),
            h.P(h.Span("Or drop them anywhere on this page, or paste one. ", cls="scripted"),
                f"Up to {MAX_IMAGE // 2**20} MB each.", id="how", cls="quiet"),
            method="post", action="/predict", enctype="multipart/form-data", id="form", cls="drop",
            data_most=f"{MAX_IMAGE}", data_total=f"{MAX_REQUEST}", data_too_large=TOO_LARGE,
        ),
        h.P(id="status", role="status", aria_live="polite", cls="status"),
        h.Div(
            h.Label(h.Input(type="checkbox", id="cam", checked=True, autocomplete="off"),
                    h.Span("Show where it looked"), cls="switch"),
            h.P("Grad-CAM: the lighter a place, the more it spoke for the class that the net chose. "
                "TTA: the mean of the image and its mirror.", cls="quiet"),
            h.Button("Clear", type="button", id="clear", cls="scripted"),
            cls="tools",
        ),
        h.Section(found, id="results", aria_label="Results"),
    )


def results(seen: list[Seen], vocab: list[str]):
    "What was found in the images of one request; page.js reads the summary aloud."
    cards = h.Ul(*(card(s, vocab) for s in seen), cls="cards")
    return h.Div(h.P(summary(seen, vocab), cls="summary"), cards, cls="found")


def summary(seen: list[Seen], vocab: list[str]) -> str:
    good = [s for s in seen if s.reason is None]
    said = [f"{s.name}: {vocab[s.plain.argmax()]}, {percent(s.plain.max())}" for s in good[:3]]
    said += [f"and {len(good) - 3} more"] if len(good) > 3 else []
    bad = len(seen) - len(good)
    said += [f"{bad} {'image' if bad == 1 else 'images'} could not be read"] if bad else []
    return "; ".join(said) + "."


def card(seen: Seen, vocab: list[str]):
    if seen.reason is not None:
        return h.Li(h.H2(seen.name, cls="file"), h.P(sentence(seen.reason)), cls="card bad")
    ranked = [int(i) for i in seen.plain.argsort()[::-1]]
    best, shown, rest = ranked[0], ranked[:CLASSES], ranked[CLASSES:]
    view = (
        h.Img(src=data_uri(seen.square), width=32, height=32, cls="square",
              alt=f"{seen.name} as the net sees it, 32 by 32 pixels"),
        h.Img(src=data_uri(overlay(seen.cam)), width=32, height=32, cls="looked",
              alt=f"Grad-CAM: {place(seen.cam)}"),
    )
    heads = (h.Th("Class", scope="col"), h.Th(aria_hidden="true"), h.Th("Plain", scope="col"), h.Th("TTA", scope="col"))
    return h.Li(
        h.Div(*view, cls="view"),
        h.Div(h.H2(seen.name, cls="file", title=seen.name),
              h.P(h.Strong(vocab[best]), h.Span(percent(seen.plain[best]), cls="sure")), cls="answer"),
        h.Table(
            h.Caption(f"Probabilities for {seen.name}", cls="heard"),
            h.Thead(h.Tr(*heads)),
            h.Tbody(*(row(vocab[i], seen.plain[i], seen.mirrored[i], i == best) for i in shown)),
        ),
        h.P(f"{len(rest):,} more classes, each at most {percent(seen.plain[rest[0]])}", cls="quiet more")
        if rest else None,
        cls="card",
    )


def row(name: str, plain: float, mirrored: float, best: bool):
    # A width in an SVG: our Content-Security-Policy allows no style in the HTML.
    bar = h.ft_html("svg", h.ft_html("rect", width=f"{100 * plain:.1f}%", height="100%", rx="4", cls="fill"), cls="bar")
    return h.Tr(h.Th(name, scope="row"), h.Td(bar, aria_hidden="true"), h.Td(percent(plain)), h.Td(percent(mirrored)),
                cls="best" if best else None)


def sentence(reason: str) -> str:
    "Our own reasons go on from the name ('is empty'); those of the system stand alone ('Permission denied')."
    reason = reason.rstrip(".")
    return f"It {reason}." if reason.startswith(("is ", "has ")) else f"{reason}."
