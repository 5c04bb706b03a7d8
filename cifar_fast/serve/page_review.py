"""The page of the review; review.js fills it."""

from __future__ import annotations

import json

from fasthtml import components as h

from cifar_fast.recipe import list_recipes
from cifar_fast.serve.decisions import LEFT_OUT
from cifar_fast.serve.review import Review
from cifar_fast.utils.text import printable

KEYED = 10
"Classes that have a digit each; of more, typing filters the names."


def refusal(text: str):
    return h.H1("Review"), h.Div(h.P(text), cls="card bad")


def page(review: Review, token: str):
    vocab = [printable(name) for name in review.classifier.predictor.vocab]
    keyed = len(vocab) <= KEYED
    name = review.card.recipe_name or "final" if review.card else "final"
    train = name if name in list_recipes() else "YOUR_RECIPE.py"
    find = () if keyed else (
        h.Label("Type to filter the classes", fr="filter", cls="quiet"),
        h.Input(id="filter", type="search", autocomplete="off", spellcheck="false", aria_controls="classes"),
    )
    return (
        h.Div(h.H1("Review"), h.P("The images whose labels the model finds least probable come first. Stop whenever "
                                  "you like; the review resumes where you left it.", cls="lead"), cls="opening"),
        h.Noscript(h.P("The review needs JavaScript, which is switched off in this browser.", cls="card bad")),
        h.P(id="review-status", role="status", aria_live="polite", cls="status"),
        h.Progress(id="review-progress", max="1", value="0", aria_label="Progress", hidden=True),
        h.Section(
            h.Div(
                h.P(h.Span(id="count"), cls="quiet"),
                h.Label("Show ", h.Select(h.Option("all images", value="all"), id="split", autocomplete="off")),
                cls="bar-top",
            ),
            h.Div(
                h.Figure(h.Div(id="stage"), h.Figcaption(id="file", cls="file")),
                h.Div(
                    h.Dl(h.Div(h.Dt("Label"), h.Dd(id="label")), h.Div(h.Dt("Prediction"), h.Dd(id="prediction")),
                         h.Div(h.Dt("The model's view"), h.Dd(h.Img(id="seen", alt="", cls="pixels"))), cls="facts"),
                    h.Div(
                        button("keep", "Keep", "Space", "primary"), button("leave-out", "Leave out", "Del"),
                        button("undo", "Undo", "⌫"), cls="decisions",
                    ),
                    h.H2("Relabel as"), *find,
                    h.Ul(id="classes"),
                    h.P(id="more", cls="quiet"),
                ),
                cls="question", id="question",
            ),
            h.P(id="end", hidden=True),
            h.P("Saved after every decision in ", h.Code(id="table"), ". Images are never changed. Train on it: ",
                h.Code(f"python -m cifar_fast recipe {train} data=", h.Span(id="data")), cls="quiet", id="saved",
                hidden=True),
            id="review", aria_label="Review", hidden=True, data_token=token, data_left_out=str(LEFT_OUT),
            data_vocab=json.dumps(vocab, ensure_ascii=False), data_keyed="1" if keyed else "",
        ),
        h.Script(src="/static/review.js", defer=True),
    )


def button(id: str, text: str, key: str, cls: str = ""):
    return h.Button(text, h.Kbd(key), type="button", id=id, cls=cls or None, aria_keyshortcuts=KEYS[id])


KEYS = {"keep": "Space", "leave-out": "Delete", "undo": "Backspace"}
