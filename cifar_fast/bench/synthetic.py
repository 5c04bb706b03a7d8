"""Random images of CIFAR-10's shape and an untrained model: speed depends neither on the pixels nor on the weights."""

from __future__ import annotations

import numpy as np
import torch

from cifar_fast.data.cifar10 import CLASSES
from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Normalization
from cifar_fast.export.predictor import Predictor
from cifar_fast.models import create_model

FLAGSHIP = "cifar_mirror"
"The architecture of recipe final."

MEAN, STD = (0.5,) * 3, (0.29,) * 3
"Per channel of the random images, in [0, 1]."


def random_images(count: int, size: int = 32) -> np.ndarray:
    "(count, size, size, 3) uint8, the same on every call."
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def untrained(device: torch.device, arch: str = FLAGSHIP) -> Predictor:
    "A `Predictor` with random weights."
    card = Card(arch=arch, vocab=list(CLASSES), normalize=Normalization(mean=list(MEAN), std=list(STD)))
    model = create_model(arch, len(CLASSES)).to(device).eval()
    return Predictor(model, card.vocab, card.normalize, device, card)
