"""NAME.html: one file that classifies images in any browser, from disk and without a network."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from cifar_fast.export.card import Card
from cifar_fast.export.targets import Predict, register_target
from cifar_fast.export.targets.onnx import NEEDS, converted
from cifar_fast.export.web.chromium import NEEDED, open_page
from cifar_fast.export.web.page import page
from cifar_fast.export.web.runtime import runtime_files


def open_model(path: Path, card: Card) -> Predict | None:
    return open_page(path)


def note(path: Path, run: bool) -> str:
    return "in Chromium, reading a PNG included" if run else f"not run here, which takes {NEEDED}"


@register_target("html", about="any browser: one page, without a network or a server", needs=NEEDS, open=open_model,
                 most=100, note=note, ready=lambda run: runtime_files())
def make(folder: Path, card: Card, model: nn.Module) -> list[Path]:
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", card.name).lstrip(".")
    path = folder / f"{stem if stem not in ('', 'report') else 'model'}.html"  # report.html is another page
    path.write_text(page(card.name, card, converted(card, model).SerializeToString(), runtime_files()), "utf-8")
    return [path]
