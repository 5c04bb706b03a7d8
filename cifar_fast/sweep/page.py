"""report.html of a sweep, one self-contained file in the style of a run's report, and the table of its trials."""

from __future__ import annotations

import base64
import shlex
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
from cifar_fast.sweep.figures import FIGURES, draw
from cifar_fast.sweep.snapshot import Snapshot, Trial
from cifar_fast.utils.files import write_text

REPORT = "report.html"


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
    return "<!doctype html>\n" + to_xml(Html(head, Body(top, Main(*body), end), lang="en"), indent=False)


MEANING = ("Accuracy is on images held out of training; the test set was not used. The best of many is a little too "
           "good: what it is worth is its test accuracy, once (--final).")


def figure_of(path: Path, says: str):
    image = Img(src=f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", alt=says)
    if is_wide(path):
        image = Div(image, cls="across", tabindex="0", role="group", aria_label=says)
    return Figure(image, Figcaption(says))


def lead(snapshot: Snapshot) -> str:
    state = {"finished": "finished", "running": "running", "stopped": "stopped, --resume continues it"}
    return " · ".join([f"sweep of {snapshot.recipe}", *([" ".join(snapshot.fixed)] if snapshot.fixed else []),
                       f"sampler {snapshot.sampler}, pruner {snapshot.pruner}",
                       state.get(snapshot.state, snapshot.state)])


def facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    best = snapshot.best
    parts = [("best held-out accuracy", f"{best.accuracy:.2%}"), ("of trial", str(best.number))] if best else []
    parts.append(("trials", f"{snapshot.done} of {len(snapshot.trials)}"))
    for state in ("running", "pruned", "diverged", "failed"):
        if count := snapshot.count(state):
            parts.append((state, str(count)))
    return parts


def ordered(snapshot: Snapshot) -> list[Trial]:
    "The complete ones by accuracy, then those that were stopped early by theirs, then the others."
    def place(t: Trial):
        rank = ("complete", "running", "pruned", "diverged", "failed", "waiting")
        return rank.index(t.state) if t.state in rank else len(rank), -(t.best or 0), t.number

    return sorted(snapshot.trials, key=place)


def rows(snapshot: Snapshot) -> list[list[str]]:
    "The table of trials, its heading first; those that wait have a line together."
    keys = list(snapshot.space)
    body = [[str(t.number), said(t), "–" if t.best is None else f"{t.best:.2%}",
             *(short(t.params.get(k)) for k in keys), str(max(map(int, t.curve), default=0)), "–" if t.seconds is None else f"{t.seconds:,.0f}"]
            for t in ordered(snapshot) if t.state != "waiting" or t.params]
    if waiting := sum(t.state == "waiting" and not t.params for t in snapshot.trials):
        body.append([f"{waiting} more", "waiting", "–", *("" for _ in keys), "", ""])
    return [["trial", "state", "accuracy", *keys, "epochs run", "seconds"], *body]


def said(t: Trial) -> str:
    "The state, with what happened."
    notes = [t.error[:160] if t.state in ("failed", "diverged") else "",
             f"resumed {t.resumed}×" if t.resumed else "", f"{t.deaths} workers died" if t.deaths > 1 else
             "a worker died" if t.deaths else ""]
    notes = [n for n in notes if n]
    return t.state + (f" ({'; '.join(notes)})" if notes else "")


def short(value) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def command(snapshot: Snapshot, more: str = "") -> str:
    "The command that started the sweep."
    words = [snapshot.recipe, *(f"{k}={v}" for k, v in snapshot.space.items()), *snapshot.fixed]
    return (f"python -m cifar_fast sweep {shlex.join(words)} --trials {len(snapshot.trials)}"
            f" --sampler {snapshot.sampler} --pruner {snapshot.pruner}{more}")
