"""Self-contained HTML files: headings, figures and tables in the style of all reports, or in a style of their own."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from pathlib import Path

from fastcore.xml import (
    FT,
    H1,
    H2,
    A,
    Body,
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
    Section,
    Style,
    Title,
    to_xml,
)

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


def document(title: str, heading: str, lead: str, facts: Sequence[tuple[str, str]],
             sections: Sequence[tuple[str, list[FT]]], end: FT, before: Sequence[FT] = ()) -> str:
    "The file's text: what it is about, its facts as tiles, links to the sections and the sections; `before` is first."
    links = Nav(*(A(name, href=f"#{anchor(name)}") for name, _ in sections), aria_label="Sections")
    top = Header(H1(heading), P(lead, cls="dim"), Dl(*(Div(Dt(label), Dd(value)) for label, value in facts)), links)
    body = [Section(H2(name, id=anchor(name)), *parts) for name, parts in sections]
    return html(title, STYLE, top, Main(*before, *body), Footer(end))


def html(title: str, style: str, *body: FT) -> str:
    "The text of a file that is read on screens of any width."
    head = Head(Meta(charset="utf-8"), Meta(name="viewport", content="width=device-width, initial-scale=1"),
                Title(title), Style(style))
    return to_xml(Html(head, Body(*body), lang="en"), indent=False)  # Html brings its doctype


def anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def figure(path: Path, says: str) -> FT:
    "A PNG inside of the file, with its caption."
    image = Img(src=f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", alt=says)
    if is_wide(path):
        image = Div(image, cls="across", tabindex="0", role="group", aria_label=says)
    return Figure(image, Figcaption(says))


def is_wide(path: Path) -> bool:
    "Whether a PNG is so wide that its text would be too small on a phone."
    head = path.read_bytes()[:24]
    if len(head) < 24 or head[:8] != b"\x89PNG\r\n\x1a\n":
        return False  # not a PNG: the report is written anyway
    width, height = struct.unpack(">II", head[16:])
    return width > 1.5 * height
