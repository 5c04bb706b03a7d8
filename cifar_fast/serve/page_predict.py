"""The page that takes images and shows the predictions for them."""

from __future__ import annotations

from fasthtml import components as h

from cifar_fast.data.images import EXTENSIONS, SEEN
from cifar_fast.export.base import BasePredictor
from cifar_fast.serve.classify import ImageResult, data_uri, overlay, strongest_place
from cifar_fast.serve.page import percent
from cifar_fast.serve.upload import MAX_IMAGE, MAX_REQUEST, TOO_LARGE

CLASSES = 50
"Rows of an image's table: a model may have thousands of classes."


def predict(predictor: BasePredictor, results=None):
    "The form, and below it the results; it works without scripts too."
    accept = ",".join(["image/*", *sorted(EXTENSIONS)])
    return (
        h.Div(
            h.H1("Classify images"),
            h.P(f"Choose images of any kind and size. The model sees {SEEN[predictor.resize_mode]} to "
                f"{predictor.size}\u00a0×\u00a0{predictor.size}\u00a0pixels.", cls="lead"),
            cls="opening",
        ),
        h.Form(
            h.Label("Images", fr="images", cls="visually-hidden"),
            h.Input(type="file", id="images", name="images", accept=accept, multiple=True, required=True,
                    aria_describedby="how"),
            h.Button("Classify", type="submit", cls="primary"),
            h.P(h.Span("Or drop them anywhere on this page, or paste one. ", cls="scripted"),
                f"Up to {MAX_IMAGE // 2**20} MB each.", id="how", cls="quiet"),
            method="post", action="/predict", enctype="multipart/form-data", id="form", cls="drop",
            data_image_bytes=f"{MAX_IMAGE}", data_request_bytes=f"{MAX_REQUEST}", data_too_large=TOO_LARGE,
        ),
        h.P(id="status", role="status", aria_live="polite", cls="status"),
        h.Div(
            h.Label(h.Input(type="checkbox", id="cam", checked=True, autocomplete="off"),
                    h.Span("Show Grad-CAM"), cls="switch"),
            h.P("Grad-CAM: the lighter a place, the more it contributed to the predicted class. ",
                "TTA: the mean of the predictions for the image and its mirror image."
                if predictor.tta_applies else None,
                cls="quiet"),
            h.Button("Clear", type="button", id="clear", cls="scripted"),
            cls="tools",
        ),
        h.Section(results, id="results", aria_label="Results"),
    )


def results(results: list[ImageResult], vocab: list[str]):
    "The results of one request; page.js announces the summary to screen readers."
    cards = h.Ul(*(card(r, vocab) for r in results), cls="cards")
    return h.Div(h.P(summary(results), cls="summary"), cards, cls="results")


def summary(results: list[ImageResult]) -> str:
    good = [r for r in results if r.error is None]
    parts = [f"{r.name}: {r.label}, {percent(r.probs.max())}" for r in good[:3]]
    parts += [f"and {len(good) - 3} more"] if len(good) > 3 else []
    bad = len(results) - len(good)
    parts += [f"no prediction for {bad} {'image' if bad == 1 else 'images'}"] if bad else []
    return "; ".join(parts) + "."


def card(result: ImageResult, vocab: list[str]):
    if result.error is not None:
        return h.Li(h.H2(result.name, cls="file"), h.P(sentence(result.error)), cls="card bad")
    ranked = [int(i) for i in result.probs.argsort()[::-1]]
    best, shown, rest = ranked[0], ranked[:CLASSES], ranked[CLASSES:]
    size = result.image.shape[0]
    view = (
        h.Img(src=data_uri(result.image), width=size, height=size, cls="pixels",
              alt=f"{result.name} as the model sees it, {size} by {size} pixels"),
        map_image(result),
    )
    heads = (h.Th("Class", scope="col"), h.Th(aria_hidden="true"), h.Th("Image", scope="col"),
             None if result.tta is None else h.Th("TTA", scope="col"))
    tta = [None] * len(result.probs) if result.tta is None else result.tta
    return h.Li(
        h.Div(*view, cls="view"),
        h.Div(h.H2(result.name, cls="file", title=result.name),
              h.P(h.Strong(result.label), h.Span(percent(result.probs[best]), cls="probability")), cls="prediction"),
        h.Table(
            h.Caption(f"Probabilities for {result.name}", cls="visually-hidden"),
            h.Thead(h.Tr(*heads)),
            h.Tbody(*(row(vocab[i], result.probs[i], tta[i], i == best) for i in shown)),
        ),
        h.P(f"{len(rest):,} more classes, each at most {percent(result.probs[rest[0]])}", cls="quiet more")
        if rest else None,
        cls="card",
    )


def maps(results: list[ImageResult]):
    "An item for each image of a request, with its Grad-CAM map where it has one; page.js puts them over the images."
    return h.Ul(*(h.Li(map_image(result)) for result in results))


def map_image(result: ImageResult):
    if result.cam is None:
        return None
    size = result.image.shape[0]
    return h.Img(src=data_uri(overlay(result.cam)), width=size, height=size, cls="overlay",
                 alt=f"Grad-CAM: {strongest_place(result.cam)}")


def row(name: str, prob: float, tta: float | None, best: bool):
    # A width in an SVG: our Content-Security-Policy allows no style in the HTML.
    bar = h.ft_html("svg", h.ft_html("rect", width=f"{100 * prob:.1f}%", height="100%", rx="4", cls="fill"), cls="bar")
    return h.Tr(h.Th(name, scope="row"), h.Td(bar, aria_hidden="true"), h.Td(percent(prob)),
                None if tta is None else h.Td(percent(tta)), cls="best" if best else None)


def sentence(error: str) -> str:
    "Errors of images follow the name ('is empty'); those of the operating system do not ('Permission denied')."
    error = error.rstrip(".")
    return f"It {error}." if error.startswith(("is ", "has ")) else f"{error}."
