"""An export with random weights, to start from."""

import torch

from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Data, Metrics, Normalization
from cifar_fast.export.save import save_export
from cifar_fast.models import create_model

STATS = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def exported(folder, arch="cifar_sprint", seed=7, vocab=("ant", "bee", "cow"), size=32):
    "Saves it with the statistics STATS; returns its weights."
    torch.manual_seed(seed)
    model = create_model(arch, len(vocab), size)
    for module in model.modules():  # statistics of some data, not those that a new model has
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.9, 1.1)
            module.num_batches_tracked += 9
    save_export(folder, model, Card(
        arch=arch, size=size, vocab=list(vocab), normalize=Normalization(mean=list(STATS[0]), std=list(STATS[1])),
        split="test", metrics=Metrics(n=500, accuracy=0.75), data=Data(name="farm")), pickle=False)
    return {k: v.clone() for k, v in model.state_dict().items()}
