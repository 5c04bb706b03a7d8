"""NAME.html: one file that classifies images in any browser, from disk and without a network."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from cifar_fast.export.card import Card
from cifar_fast.export.targets import Answer, register_target
from cifar_fast.export.targets.onnx import NEEDS, converted
from cifar_fast.export.web.chromium import open_page
from cifar_fast.export.web.page import page
from cifar_fast.export.web.runtime import runtime_files


def answers(path: Path, card: Card) -> Answer | None:
    return open_page(path)


@register_target("html", about="any browser: one page, without a network or a server", needs=NEEDS, open=answers,
                 most=100)
def make(folder: Path, card: Card, model: nn.Module) -> list[Path]:
    runtime = runtime_files()  # first: it is what may be missing
    content = page(card.name, card, converted(card, model).SerializeToString(), runtime)
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', card.name).lstrip('.') or 'model'}.html"
    path.write_text(content, encoding="utf-8")
    return [path]
