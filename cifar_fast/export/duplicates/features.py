"""What a trained model sees in an image: its last feature map, as means of its four quarters."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from cifar_fast.export.card_format import ExportError
from cifar_fast.export.predictor import Predictor
from cifar_fast.utils.log import progress

SIDE = 2  # of the means: where a thing is counts too
BATCH = 250  # images


@torch.no_grad()
def features(model: Predictor, images, what: str) -> np.ndarray:
    "(N, 4 * channels) float32 of (N, size, size, 3) uint8. Raises ExportError where a model has no feature map."
    maps = []
    for first in progress(range(0, len(images), BATCH), -(-len(images) // BATCH), f"features of {what}", "batches"):
        x = model.normalize(np.asarray(images[first:first + BATCH]))
        found = model.model.forward_features(x) if hasattr(model.model, "forward_features") else x[:, 0]
        if found.ndim != 4:
            raise ExportError(f"{model.origin} has no feature map, which timm's models give as forward_features; "
                              f"search by pixels alone: duplicates data=NAME")
        maps.append(adaptive_avg_pool2d(found.float(), SIDE).flatten(1).cpu().numpy())
    return np.concatenate(maps)
