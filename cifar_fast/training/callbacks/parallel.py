"""Data-parallel training: every process takes each step on its slice of the batch, and all keep the same weights.

Gradients are averaged by torch's DistributedDataParallel. One small sum a step goes with them: the loss, the running
statistics of batch norm, and whether to stop or save. So loss, weights, statistics and their averages are equal in all
processes after every step, to the bit. Sums of metrics are added up once an epoch.
"""

from __future__ import annotations

import signal
import warnings

import torch
from fastai.callback.core import Callback
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cifar_fast.training.batch_transforms import BatchTransforms
from cifar_fast.training.callbacks.synced_batch_norm import count_images, synchronise, undo_synchronise
from cifar_fast.training.run_state import SUMS
from cifar_fast.utils.ranks import from_first, here, total
from cifar_fast.utils.signals import StopRequested


class Parallel(Callback):
    "Trains together with the other processes; see the module."

    order = 45  # before Recorder (50), which records the loss and the metrics that are added up here

    def __init__(self, transforms: BatchTransforms, sync_bn: bool = False):
        self.transforms, self.sync_bn = transforms, sync_bn
        self.kind_names = sorted(transforms.kinds)
        self.history = self.checkpoint = None  # set by `fit`
        self.learner = self.bare = self.wrapped = self.trained = None
        self.images, self.kinds = 0, {}  # of the whole batch: images, and slices by kind of mixing
        self.stop = self.due = False  # any process has to stop; the first one's checkpoint is due

    def before_fit(self):
        self.learner, self.bare, self.wrapped, self.trained = self.learn, self.learn.model, None, None
        if self.sync_bn:
            synchronise(self.bare)

    def before_batch(self):
        if not self.training:
            return
        own, self.images = self.dl.share(self.iter)
        self.weight = own / self.images
        if self.sync_bn:
            count_images(self.bare, own > 0)
        self.recorder.run = True
        trained = [p.requires_grad for p in self.bare.parameters()]
        if trained != self.trained:  # DistributedDataParallel keeps a list of those that have gradients
            self.wrapped, self.trained = wrap(self.bare), trained
        self.learn.model = self.wrapped  # for the forward pass alone: callbacks see the model itself

    def after_pred(self):
        if self.training:
            self.learn.model = self.bare

    def after_loss(self):
        "The mean over processes that DistributedDataParallel takes becomes the mean over images."
        if self.training and (factor := self.weight * here().count) != 1:
            self.learn.loss_grad = self.loss_grad * factor

    def before_backward(self):
        stop, due = self.checkpoint.flags() if self.checkpoint else (False, False)
        kinds = [float(self.transforms.kind == name and self.weight > 0) for name in self.kind_names]
        head = torch.tensor([0.0, stop, due and here().first, *kinds], device=self.loss.device)
        head[0] = self.loss.detach() * self.weight
        self.shared = torch.cat([head, *(b.flatten() * self.weight for b in statistics(self.bare))])
        self.work = torch.distributed.all_reduce(self.shared, async_op=True)  # while gradients are computed

    def after_backward(self):
        self.work.wait()
        loss, stop, due, *kinds = self.shared[:3 + len(self.kind_names)].tolist()
        self.learn.loss = self.shared[0].clone()
        self.kinds = {name: round(n) for name, n in zip(self.kind_names, kinds, strict=True) if n}
        self.agree(stop > 0)
        self.due = due > 0
        unflatten(self.shared[3 + len(kinds):], statistics(self.bare))

    def after_batch(self):
        if self.training and not self.weight:  # its one image belongs to another process: only the loss is recorded
            smooth = self.recorder.smooth_loss
            smooth.accumulate(self.learn)
            self.recorder.losses.append(smooth.value)
            self.recorder.run = False

    def after_train(self):
        self.recorder.run = True
        self.add_up(self.recorder._train_mets[1:])  # without the smoothed loss, which is the same everywhere

    def after_validate(self):
        self.add_up(self.recorder._valid_mets)

    def after_epoch(self):
        self.history.seconds = from_first(self.history.seconds)
        stop, _ = self.checkpoint.flags() if self.checkpoint else (False, False)
        self.agree(bool(total(torch.tensor(float(stop)))))

    def agree(self, stop: bool) -> None:
        "Stop all processes after the same step where one was told to."
        self.stop = stop
        if stop and self.checkpoint.stop is None:
            self.checkpoint.stop = StopRequested(signal.SIGTERM)

    def add_up(self, metrics) -> None:
        "Replace the sums of these metrics by those over all processes."
        places = [(m, name) for m in metrics for name in SUMS if name in vars(m)]
        values = [torch.as_tensor(vars(m)[name]).as_subclass(torch.Tensor).double().cpu() for m, name in places]
        if not values:
            return
        sums = total(torch.cat([v.flatten() for v in values])).split([v.numel() for v in values])
        for (metric, name), now, summed in zip(places, values, sums, strict=True):
            whole = torch.is_tensor(vars(metric)[name]) and now.ndim
            setattr(metric, name, summed.view_as(now).long() if whole else summed.item())

    def average(self, model: nn.Module) -> None:
        "Running statistics that were computed from each process's own images become their mean."
        shared = torch.cat([b.flatten() / here().count for b in statistics(model)])
        unflatten(total(shared), statistics(model))

    def undo(self):
        "Also called when a run is interrupted in the middle of a batch."
        if self.learner is not None:
            self.learner.model, self.learner.recorder.run = self.bare, True
            undo_synchronise(self.bare)


def wrap(model: nn.Module) -> DistributedDataParallel:
    """The model with averaged gradients.

    The order of a sum over more than two processes depends on where a gradient lies in its bucket. Looking for unused
    parameters keeps the buckets as they are from the first step on, so that a resumed run has the same order.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    with warnings.catch_warnings():  # torch 2.15 has another name for broadcast_buffers, which 2.10 does not know
        warnings.filterwarnings("ignore", "`broadcast_buffers`")
        return DistributedDataParallel(model, broadcast_buffers=False, init_sync=False,
                                       find_unused_parameters=on_cpu and here().count > 2)


def statistics(model: nn.Module) -> list[torch.Tensor]:
    "The running means and variances of batch norm, and any other buffer of floats."
    return [b for b in model.buffers() if b.is_floating_point()]


@torch.no_grad()
def unflatten(values: torch.Tensor, tensors: list[torch.Tensor]) -> None:
    for part, tensor in zip(values.split([t.numel() for t in tensors]), tensors, strict=True):
        tensor.copy_(part.view_as(tensor))
