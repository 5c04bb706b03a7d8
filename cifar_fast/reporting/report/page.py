"""report.html: one self-contained file with a run's card, history and figures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from fastcore.xml import (
    FT,
    Code,
    Div,
    P,
    Pre,
    Span,
    Table,
    Tbody,
    Td,
    Th,
    Thead,
    Tr,
)

from cifar_fast.audit import amount, bound
from cifar_fast.export.calibration import confidence_line, threshold_rows
from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Rule
from cifar_fast.reporting.report.document import document, figure
from cifar_fast.utils.fonts import numbered_in_figures

FIGURES = {  # file → heading of its section, what it shows
    "history.png": ("Curves", "Loss and accuracy by epoch; a dashed red line marks the target, if the recipe has one."),
    "learning_rate.png": ("Curves", "Learning rate over the steps, and momentum where it changes."),
    "lr_find.png": ("Curves", "The learning rate finder before the run."),
    "published.png": ("Curves", "The published record beside this run."),
    "augmented.png": ("Training batch", "Training images of the first epoch: augmented, resized and mixed."),
    "classes.png": ("Classes", "Accuracy of each class."),
    "confusion.png": ("Classes", "Which class is predicted for which."),
    "mistakes.png": ("Most confident errors", "The most confident errors (top losses)."),
    "calibration.png": ("Calibration", "Accuracy against confidence: on the diagonal both are the same."),
    "corruptions.png": ("Corruptions", "Accuracy by corruption and severity, and by JPEG quality."),
    "corrupted.png": ("Corruptions", "One image as each corruption shows it, at severities 1, 3 and 5."),
    "duplicates.png": ("Near-duplicates", "A test image (left) and one of train, just above and below each threshold."),
    "layers.png": (None, ""),  # in the page as a table
}
"Every figure of a run, in the order of the page."



def page(card: Card, folder: Path, history: pd.DataFrame | None, layers: list[list[str]] | None,
         missing: list[str] = (), errors: list[list[str]] | None = None, confidence: dict | None = None) -> str:
    """The whole report as HTML; `folder` holds the figures, `missing` says what is left out and why.

    `errors`: the table of the most confident errors, its heading first; `confidence`: what `confidence_scores` gives
    for the images that the run was measured on.
    """
    name = card.name or folder.name
    exports = card.recipe.get("exports") or "exports"
    named = shlex.quote(name if exports == "exports" else f"{exports}/{name}")
    sections = figures(folder, history, numbered_in_figures(card.vocab), errors_table(errors, named),
                       {"Calibration": calibration(card, confidence), "Corruptions": corrupted(card),
                        "Near-duplicates": copies(card)})
    sections += filter(None, [audited(card, layers), recipe(card), environment(card)])
    left_out = [P(Span("Not in this report: ", cls="dim"), "; ".join(missing))] if missing else []
    end = P("Made by cifar_fast. ", Code(f"python -m cifar_fast report {named}"), " makes it again.")
    return document(f"{name}: report of a run", name, lead(card), card.facts(), sections, end, left_out)


def lead(card: Card) -> str:
    parts = [f"{card.arch} on {card.data.name or 'its data'}",
             f"started from {card.start.what}" if card.start else "",
             f"learned from {card.taught_by}" if card.taught_by else "", card.measured_how, card.date,
             f"{card.seconds.training:,.0f} s of training" if card.seconds else "", card.machine.device,
             f"commit {card.commit}" if card.commit else ""]
    return " · ".join(p for p in parts if p)


def calibration(card: Card, confidence: dict | None) -> list[FT]:
    "Coverage and accuracy at thresholds, and the calibration error with and without the run's temperature."
    if not confidence:
        return []
    line = confidence_line(confidence)
    about = f"The {card.calibration}." if card.calibration else ""
    return [P(f"{line[0].upper()}{line[1:]}. {about}"),
            P("Coverage is the fraction of images whose predicted class has at least the probability of the threshold; "
              "predict --threshold 0.8 predicts unknown for the others.", cls="dim"), table(threshold_rows(confidence))]


def corrupted(card: Card) -> list[FT]:
    "The means, and how the images were made."
    if not card.corruptions:
        return []
    return [P(f"{card.corruptions}. The images are made here (seed {card.corruptions.seed}) by the descriptions of "
              "Hendrycks and Dietterich (2019); they are not those of CIFAR-10-C.")]


def copies(card: Card) -> list[FT]:
    return [P(f"{card.duplicates}.")] if card.duplicates else []


def figures(folder: Path, history: pd.DataFrame | None, numbered: Mapping[str, str], errors: list[FT] = (),
            below: Mapping[str, list[FT]] = MappingProxyType({})) -> list[tuple[str, list[FT]]]:
    """The sections with images, for the figures that exist; `errors` and `below` (by section) under theirs.

    `numbered`: classes that figures call by number.
    """
    sections: dict[str, list[FT]] = {}
    for name, (heading, says) in FIGURES.items():
        if heading and (folder / name).is_file():
            sections.setdefault(heading, []).append(figure(folder / name, says))
    if numbered and "Classes" in sections:
        names = [["in the figures", "class"], *map(list, numbered.items())]
        sections["Classes"].append(Div(P("No font of the machine that drew the figures has these names.", cls="dim"),
                                       table(names, words=True)))
    if history is not None and len(history):
        sections.setdefault("Curves", []).append(epochs_table(history))
    if errors:
        sections.setdefault(FIGURES["mistakes.png"][0], []).extend(errors)
    for heading, parts in below.items():
        if parts:
            sections.setdefault(heading, []).extend(parts)
    return list(sections.items())


def epochs_table(history: pd.DataFrame) -> FT:
    "A table of the last epochs; history.csv has all of them."
    shown = history.tail(5)
    rows = [[cell(c, v) for c, v in row.items()] for _, row in shown.iterrows()]
    return Div(P(f"The last {len(shown)} of {len(history)} epochs; history.csv has them all.", cls="dim"),
               table([[c.replace("_", " ") for c in shown.columns], *rows]))


def errors_table(rows: list[list[str]] | None, named: str) -> list[FT]:
    "Which images those of mistakes.png are, row by row; `named` is the run as a command takes it."
    if not rows or len(rows) == 1:
        return []
    return [table(rows, words=True),
            P("Copies of all errors in a folder: ", Code(f"python -m cifar_fast report {named} --errors DIR"))]


def cell(column: str, value: float) -> str:
    "An accuracy in percent, as everywhere else, no thousands as powers of ten; – where the epoch has no such value."
    if pd.isna(value):
        return "–"
    if "accuracy" in column:
        return f"{value:.2%}"
    return f"{value:,.0f}" if column == "epoch" or value >= 1000 else f"{value:.4g}"


def audited(card: Card, layers: list[list[str]] | None) -> tuple[str, list[FT]] | None:
    rows = [["rule", "required", "found", ""]]
    for v in card.audit.verdicts if card.audit else ():
        verdict = Span("met", cls="ok") if v.ok else Span(
            f"waived: {card.waived[v.rule]}" if v.rule in card.waived else "broken", cls="broken")
        rows.append([v.rule.replace("_", " "), required(v), amount(v.rule, v.found), verdict])
    parts = [table(rows, words=True)] if len(rows) > 1 else []
    if layers:
        parts += [P("Layers in the order they run; RF is the receptive field in pixels, by the rule.", cls="dim"),
                  table(layers)]
    return ("Model and audit", parts) if parts else None


def recipe(card: Card) -> tuple[str, list[FT]] | None:
    if not card.recipe:
        return None
    rows = [["setting", "value"], *([k, Code(value_text(v))] for k, v in card.recipe.items())]
    return "Recipe", [table(rows, words=True)]


def environment(card: Card) -> tuple[str, list[FT]]:
    rows = [["what", "which"], *([k, str(v)] for part in (asdict(card.machine), card.versions, asdict(card.data))
                                 for k, v in part.items())]
    folder = f"{card.recipe.get('exports') or 'exports'}/{card.name or 'NAME'}"
    again = f"python -m cifar_fast predict {shlex.quote(folder)} IMAGE…"
    return "Environment", [table(rows, words=True), P("Use it:"), Pre(Code(again))]


# ---------------------------------------------------------------- pieces


def table(rows: list[list], words: bool = False) -> FT:
    head, *body = rows
    table = Table(Thead(Tr(*(Th(c, scope="col") for c in head))), Tbody(*(Tr(*(Td(c) for c in row)) for row in body)),
                 cls="words" if words else None)
    return Div(table, cls="wide", tabindex="0", role="region", aria_label=f"Table by {head[0]}")


def value_text(value) -> str:
    "A described value in a line: a callable by its last name, with its arguments."
    if isinstance(value, dict) and set(value) == {"call", "args"} and isinstance(value["args"], dict):
        args = ", ".join(f"{k}={value_text(v)}" for k, v in value["args"].items())
        return f"{str(value['call']).rpartition('.')[2]}({args})"
    if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), dict):  # a transform
        (name, args), = value.items()
        return f"{name}({value_text(args)})"
    if isinstance(value, dict):
        return ", ".join(f"{k}={value_text(v)}" for k, v in value.items()) or "–"
    if isinstance(value, list):
        return ", ".join(map(value_text, value)) or "–"
    return "–" if value is None else str(value)


def required(rule: Rule) -> str:
    "`at most 199,999`; yes for a rule without a number."
    value = amount(rule.rule, rule.required)
    return value if isinstance(rule.required, bool) else f"{bound(rule.rule)} {value}"
