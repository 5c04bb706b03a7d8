"""Saving a trained model: model.safetensors and config.json as timm and the Hub want them, learner.pkl, card.json."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from cifar_fast.export.card import Card
from cifar_fast.export.files import CONFIG, LEARNER, WEIGHTS, file_sha256
from cifar_fast.export.own_models import recipe_files_by_value
from cifar_fast.models import create_model, model_args
from cifar_fast.utils.files import atomic_write, expand_path, new_folder, write_text

CROP_MODES = {"crop": "center", "squash": "squash", "pad": "border"}
"resize_mode → what timm calls it. Its border is of the mean colour, where ours is black."


def save_export(path: str | Path, model: torch.nn.Module, card: Card, pickle: bool = True) -> Card:
    """Make the folder `path`, which holds a model and its card, whole or not at all; returns the card with its sum.

    A folder that is there already is replaced.
    """
    with new_folder(expand_path(path)) as folder:
        card = write_model(folder, model, card, pickle)
        card.write(folder)
    return card


def write_model(
    folder: Path,
    model: torch.nn.Module,
    card: Card,
    pickle: bool = True,  # also learner.pkl, for which fastai is imported
) -> Card:
    "Write model and config; returns the card with the weights' checksum, which the caller writes."
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as tmp:
        tmp.write_bytes(save(state, metadata={"format": "pt"}))  # one key: several come in a random order
    write_text(folder / CONFIG, json.dumps(timm_config(model, card), indent=2, ensure_ascii=False) + "\n")
    if pickle:
        save_learner(folder / LEARNER, card, state)
    return replace(card, sha256=file_sha256(folder / WEIGHTS))


def timm_config(model: torch.nn.Module, card: Card) -> dict:
    "What `timm.create_model('local-dir:exports/NAME', pretrained=True)` and the Hub read."
    known = getattr(model, "pretrained_cfg", None) or {}
    pretrained = {k: known[k] for k in ("pool_size", "first_conv", "classifier") if known.get(k) is not None}
    features = getattr(model, "num_features", None)
    return {
        "architecture": card.arch,
        "num_classes": len(card.vocab),
        **({"num_features": features} if features else {}),
        "label_names": card.vocab,
        **({"model_args": args} if (args := model_args(card.arch, card.size, card.widths)) else {}),
        "pretrained_cfg": {
            "input_size": [3, card.size, card.size], "fixed_input_size": False, "num_classes": len(card.vocab),
            "interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": CROP_MODES[card.resize_mode],
            "mean": card.normalize.mean, "std": card.normalize.std, **pretrained,
        },
    }


def save_learner(path: Path, card: Card, state: dict) -> None:
    "A Learner with these weights, the valid pipeline and the vocab: what fastai's `load_learner` opens."
    from fastai.learner import cloudpickle

    learn, content = inference_learner(card, state), io.BytesIO()
    learn.dls = learn.dls.new_empty()
    # As `learn.export` does. It writes to the file itself, and torch reports a full disk as "unexpected pos 128 vs 0".
    with recipe_files_by_value():
        torch.save(learn, content, pickle_module=cloudpickle, pickle_protocol=2)
    with atomic_write(path) as tmp:
        tmp.write_bytes(content.getbuffer())


def inference_learner(card: Card, state: dict):
    "A Learner that predicts with `state`; it holds no training data and no training callbacks."
    from fastai.learner import Learner
    from fastai.metrics import accuracy

    from cifar_fast.data.block import data_block
    from cifar_fast.data.sources import Arrays, Source
    from cifar_fast.training.losses import TemperedCrossEntropy

    blank = Arrays(np.zeros((1, card.size, card.size, 3), np.uint8), np.zeros(1, np.int64))
    source = Source(name=card.data.name or "unknown", train=blank, test=None, vocab=tuple(card.vocab),
                    mean=tuple(card.normalize.mean), std=tuple(card.normalize.std),
                    fingerprint=card.data.fingerprint, skipped=(), origin="export", size=card.size,
                    resize_mode=card.resize_mode, ranges=card.data.ranges)
    dls = data_block(source, [0], [0]).dataloaders(np.arange(1), bs=1, num_workers=0, device=torch.device("cpu"))
    model = create_model(card.arch, len(card.vocab), card.size, card.widths)
    model.load_state_dict(state)
    return Learner(dls, model.eval(), loss_func=TemperedCrossEntropy(card.temperature), metrics=accuracy,
                   path=Path("."))
