"""learner.pkl: a fastai Learner with the run's pipeline, for `load_learner`. Opening one runs its code."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from cifar_fast.export.card import Card
from cifar_fast.export.files import LEARNER
from cifar_fast.export.predictor import load_pickle
from cifar_fast.export.save import save_learner
from cifar_fast.export.targets import Predict, register_target


def open_model(path: Path, card: Card) -> Predict:
    return load_pickle(path, trusted=True).predict  # made in this process


@register_target("pickle", about="fastai", needs=("fastai",), open=open_model)
def make(folder: Path, card: Card, model: nn.Module) -> list[Path]:
    save_learner(folder / LEARNER, card, model.state_dict())
    return [folder / LEARNER]
