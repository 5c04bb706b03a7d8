"""The whole way of an image through a model, as one module for converters: pixels in, probabilities out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cifar_fast.export.card import Card
from cifar_fast.models.fold import fold

BATCHES = (1, 2**16)
"How many images an exported model takes at a time."


class Deployed(nn.Module):
    "A folded model between normalisation and softmax."

    def __init__(self, model: nn.Module, card: Card):
        super().__init__()
        self.model = fold(model).cpu()
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (card.normalize.mean, card.normalize.std))
        self.register_buffer("scale", (1 / (255 * std)).float()[:, None, None])
        self.register_buffer("shift", (-mean / std).float()[:, None, None])
        self.register_buffer("temperature", torch.tensor(card.temperature, dtype=torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        "(N, size, size, 3) uint8, red green blue → (N, C) float32."
        x = images.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return (self.model(x).float() / self.temperature).softmax(1)


def deployed(model: nn.Module, card: Card) -> tuple[Deployed, tuple[Tensor], dict]:
    "The module, inputs for an example, and that their number varies: what torch.export takes."
    example = torch.zeros(2, card.size, card.size, 3, dtype=torch.uint8)
    return Deployed(model, card).eval(), (example,), {"images": {0: torch.export.Dim("N", min=BATCHES[0],
                                                                                     max=BATCHES[1])}}
