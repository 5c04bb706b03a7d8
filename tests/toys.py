"""What tests of training share: a Learner on one linear layer, a watching callback, states to compare."""

from functools import partial

import fastai.callback.schedule  # noqa: F401 - it gives Learner its fit_one_cycle
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Metric
from torch import nn

from cifar_fast.training import optimizers


def state(module):
    return {k: v.clone() for k, v in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items())


class Watch(Callback):
    "A callback that calls functions at the named events: Watch(order, after_step=lambda learn: …)."

    def __init__(self, order, **events):
        self.order, self.events = order, events
        for name, call in events.items():
            setattr(self, name, partial(self._call, call))

    def _call(self, call):
        call(self.learn)


def toy(values=None, opt=None, steps=4):
    "A Learner on one linear layer, shown `values` as its validation accuracy."
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.randn(5, 3, generator=generator), torch.randn(5, 2, generator=generator)) for _ in range(steps)]
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    learn = Learner(DataLoaders(batches, batches[:1]), net, loss_func=nn.functional.mse_loss, lr=0.1,
                    opt_func=opt or optimizers.sgd, metrics=[Given(values)] if values else [])
    learn.recorder.train_metrics = True
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *_: None
    return learn, batches


class Given(Metric):
    name = "accuracy"

    def __init__(self, values):
        self.values, self.epoch = values, 0

    def reset(self):
        pass

    def accumulate(self, learn):
        self.epoch = learn.epoch

    @property
    def value(self):
        return self.values[self.epoch]
