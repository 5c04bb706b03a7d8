"""Random images of CIFAR-10's shape and an untrained net: time does not depend on what images show or nets know."""

from __future__ import annotations

import numpy as np
import torch

from cifar_fast.data.download import CLASSES
from cifar_fast.export.card import Card, Normalization
from cifar_fast.export.predictor import Predictor
from cifar_fast.models import create_model

FLAGSHIP = "cifar_mirror"
"The net of recipe final."

MEAN, STD = (0.5,) * 3, (0.29,) * 3
"Of the images' channels, in 0..1."


def random_images(count: int) -> np.ndarray:
    "(count, 32, 32, 3) uint8."
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def untrained(device: torch.device, arch: str = FLAGSHIP) -> Predictor:
    "What an export of this architecture would open as."
    card = Card(arch=arch, vocab=list(CLASSES), normalize=Normalization(mean=list(MEAN), std=list(STD)))
    model = create_model(arch, len(CLASSES)).to(device).eval()
    return Predictor(model, card.vocab, card.normalize, device, card)
