"""report.html: one self-contained file with a run's card, history and figures."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import pandas as pd
from fastcore.xml import (
    FT,
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
    Span,
    Style,
    Table,
    Tbody,
    Td,
    Th,
    Thead,
    Title,
    Tr,
    to_xml,
)

from cifar_fast.audit import amount, bound
from cifar_fast.export.calibration import confidence_line, threshold_rows
from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Rule
from cifar_fast.utils.fonts import numbered_in_figures

FIGURES = {  # file → heading of its section, what it shows
    "history.png": ("Curves", "Loss and accuracy by epoch; a dashed red line marks the target, if the recipe has one."),
    "learning_rate.png": ("Curves", "Learning rate and momentum over the steps."),
    "lr_find.png": ("Curves", "The learning rate finder before the run."),
    "published.png": ("Curves", "The published record beside this run."),
    "augmented.png": ("Training batch", "Training images of the first epoch: augmented, resized and mixed."),
    "classes.png": ("Classes", "Accuracy of each class."),
    "confusion.png": ("Classes", "Which class is predicted for which."),
    "mistakes.png": ("Most confident errors", "The most confident errors (top losses)."),
    "calibration.png": ("Calibration", "Accuracy against confidence: on the diagonal both are the same."),
    "corruptions.png": ("Corruptions", "Accuracy by corruption and severity, and by JPEG quality."),
    "corrupted.png": ("Corruptions", "One image as each corruption shows it, at severities 1, 3 and 5."),
    "duplicates.png": ("Near-duplicates", "Pairs of a test image and one of train, around the threshold."),
    "layers.png": (None, ""),  # in the page as a table
}
"Every figure of a run, in the order of the page."

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #586274; --paper: #fbfbf9; --card: #ffffff; --line: #dfe3e8;
  --accent: #0060a0; --good: #00694b; --bad: #a63c00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --dim: #a7b0bd; --paper: #14181e; --card: #1c222a;
  --line: #323b47; --accent: #7cc0f5; --good: #5fd0a8; --bad: #ff9f6b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
header, main, footer { max-width: 60rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.6rem 0 .8rem; }
p { margin: .4rem 0 .8rem; } .dim, figcaption, footer { color: var(--dim); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 1.2rem 0 0; padding: .7rem 0;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
a { color: var(--accent); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.4rem 0 0; }
dl div { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem .9rem; }
dt { color: var(--dim); font-size: .8rem; } dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
figure { margin: 0 0 1.2rem; } figure img { display: block; max-width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: .6rem; padding: .5rem; }
figcaption { margin-top: .35rem; }
@media (max-width: 44rem) { .across { overflow-x: auto; } .across img { max-width: none; width: 44rem; } }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--dim); font-weight: 600; } th:first-child, td:first-child, .words td, .words th { text-align: left; }
.words td:nth-child(2) code { white-space: normal; overflow-wrap: anywhere; }
.ok { color: var(--good); } .broken { color: var(--bad); }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem; }
code { font: .88em ui-monospace, monospace; } footer { margin: 3rem auto 2.5rem; }
"""


def page(card: Card, folder: Path, history: pd.DataFrame | None, layers: list[list[str]] | None,
         missing: list[str] = (), errors: list[list[str]] | None = None, confidence: dict | None = None) -> str:
    """The whole report as HTML; `folder` holds the figures, `missing` says what is left out and why.

    `errors`: the table of the most confident errors, its heading first; `confidence`: what `confidence_scores` gives
    for the images that the run was measured on.
    """
    name = card.name or folder.name
    sections = figures(folder, history, numbered_in_figures(card.vocab), errors_table(errors, name),
                       {"Calibration": calibration(card, confidence), "Corruptions": corrupted(card),
                        "Near-duplicates": copies(card)})
    sections += filter(None, [audited(card, layers), recipe(card), environment(card)])
    links = Nav(*(A(heading, href=f"#{anchor(heading)}") for heading, _ in sections), aria_label="Sections")
    body = [Section(H2(heading, id=anchor(heading)), *parts) for heading, parts in sections]
    left_out = [P(Span("Not in this report: ", cls="dim"), "; ".join(missing))] if missing else []
    head = Head(Meta(charset="utf-8"), Meta(name="viewport", content="width=device-width, initial-scale=1"),
                Title(f"{name}: report of a run"), Style(STYLE))
    facts = Dl(*(Div(Dt(label), Dd(value)) for label, value in card.facts()))
    top = Header(H1(name), P(lead(card), cls="dim"), facts, links)
    end = Footer(P("Made by cifar_fast. ", Code(f"python -m cifar_fast report {name}"), " makes it again."))
    return "<!doctype html>\n" + to_xml(Html(head, Body(top, Main(*left_out, *body), end), lang="en"), indent=False)


def anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def lead(card: Card) -> str:
    parts = [f"{card.arch} on {card.data.name or 'its data'}",
             f"started from {card.start.what}" if card.start else "",
             f"learned from {card.teacher}" if card.teacher else "", card.measured_how, card.date,
             f"{card.seconds.training:,.0f} s of training" if card.seconds else "", card.machine.device,
             f"commit {card.commit}" if card.commit else ""]
    return " · ".join(p for p in parts if p)


def calibration(card: Card, confidence: dict | None) -> list[FT]:
    "What a threshold does, and the calibration error with and without the run's temperature."
    if not confidence:
        return []
    line = confidence_line(confidence)
    about = f"The {card.calibration}." if card.calibration else ""
    return [P(f"{line[0].upper()}{line[1:]}. {about}"),
            P("With a threshold, an image is answered where the predicted class has at least that probability: "
              "predict --threshold 0.8 says unknown for the others.", cls="dim"), table(threshold_rows(confidence))]


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
            code = base64.b64encode((folder / name).read_bytes()).decode()
            image = Img(src=f"data:image/png;base64,{code}", alt=says)
            if is_wide(folder / name):
                image = Div(image, cls="across", tabindex="0", role="group", aria_label=says)
            sections.setdefault(heading, []).append(Figure(image, Figcaption(says)))
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


def is_wide(path: Path) -> bool:
    "Whether a PNG is so wide that its text would be too small on a phone."
    head = path.read_bytes()[:24]
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n":
        return False  # not a PNG: the report is written anyway
    width, height = struct.unpack(">II", head[16:])
    return width > 1.5 * height


def epochs_table(history: pd.DataFrame) -> FT:
    "A table of the last epochs; history.csv has all of them."
    shown = history.tail(5)
    rows = [[cell(c, v) for c, v in row.items()] for _, row in shown.iterrows()]
    return Div(P(f"The last {len(shown)} of {len(history)} epochs; history.csv has them all.", cls="dim"),
               table([[c.replace("_", " ") for c in shown.columns], *rows]))


def errors_table(rows: list[list[str]] | None, name: str) -> list[FT]:
    "Which images those of mistakes.png are, row by row."
    if not rows or len(rows) == 1:
        return []
    return [table(rows, words=True),
            P("Copies of all errors in a folder: ", Code(f"python -m cifar_fast report {name} --errors DIR"))]


def cell(column: str, value: float) -> str:
    "An accuracy in percent, as everywhere else; – where the epoch has no such value."
    if pd.isna(value):
        return "–"
    return f"{value:.0f}" if column == "epoch" else f"{value:.2%}" if "accuracy" in column else f"{value:.4g}"


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
    again = f"python -m cifar_fast predict exports/{card.name or 'NAME'} IMAGE…"
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
