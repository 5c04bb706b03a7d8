"""model.pt2: the folded model as a program of torch.export, which runs without its Python code."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from cifar_fast.export.card import Card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.deployed import deployed
from cifar_fast.export.files import short
from cifar_fast.export.targets import Predict, register_target

PT2 = "model.pt2"


def open_model(path: Path, card: Card) -> Predict:
    run = torch.export.load(path).module()

    @torch.no_grad()
    def predict(images):
        return run(torch.from_numpy(images)).numpy()
    return predict


@register_target("torch", about="torch alone: torch.export.load, and what is built on it", open=open_model)
def make(folder: Path, card: Card, model: nn.Module) -> list[Path]:
    module, example, shapes = deployed(model, card)
    try:
        with torch.no_grad():
            program = torch.export.export(module, example, dynamic_shapes=shapes)
    except Exception as e:  # whatever a forward does that cannot be captured
        raise ExportError(f"{card.arch} cannot be exported by torch.export: {short(e)}") from e
    torch.export.save(program, folder / PT2, extra_files={"classes.json": json.dumps(card.vocab, ensure_ascii=False)})
    return [folder / PT2]
