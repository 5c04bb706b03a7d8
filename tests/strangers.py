"""What the tests of model files share: an export's card, and a pickle that would leave a trace."""

import os
from pathlib import Path

from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Normalization

CLASSES = [f"class {i}" for i in range(10)]
CARD = Card(arch="cifar_sprint", vocab=CLASSES, normalize=Normalization(mean=[0.5] * 3, std=[0.25] * 3), name="good")


class Payload:
    "Touches a file where it is unpickled."

    def __reduce__(self):
        return Path.touch, (Path(os.environ["CIFAR_FAST_TEST_PAYLOAD"]),)


def weights(folder) -> Path:
    return folder / "model.safetensors"
