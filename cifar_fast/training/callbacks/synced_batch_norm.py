"""Batch norm over the whole batch of several processes, on any device; torch's SyncBatchNorm needs a GPU."""

from __future__ import annotations

import torch
import torch.distributed
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cifar_fast.utils.errors import SettingError


class AllSum(torch.autograd.Function):
    "The sum over all processes; so is its gradient."

    @staticmethod
    def forward(ctx, x):
        torch.distributed.all_reduce(x := x.clone())
        return x

    @staticmethod
    def backward(ctx, grad):
        torch.distributed.all_reduce(grad := grad.clone())
        return grad


class SyncedBatchNorm2d(nn.BatchNorm2d):
    "In training, (N, C, H, W) are normalised by mean and variance over the images of all processes, (C,) each."

    counted = True  # False where this process has an image of another one, for want of its own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        own, dims = x.to(torch.promote_types(x.dtype, torch.float32)), (0, 2, 3)
        count = own.new_tensor([own.numel() / own.shape[1]])
        sums = torch.cat([own.sum(dims), count])
        sums = AllSum.apply(sums if self.counted else 0 * sums)
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = own - mean[None, :, None, None]  # first the mean, then the variance: their difference loses digits
        squares = centred.square().sum(dims)
        variance = AllSum.apply(squares if self.counted else 0 * squares) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            # Without a momentum it is the mean over all batches, as in torch's own.
            weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, weight)
            self.running_var.lerp_(variance * count / (count - 1), weight)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[None, :, None, None] + self.bias[None, :, None, None]).to(x.dtype)


def synchronise(model: nn.Module) -> None:
    "Raises SettingError for a model with another kind of batch norm."
    for module in model.modules():
        if isinstance(module, _BatchNorm) and type(module) not in (nn.BatchNorm2d, SyncedBatchNorm2d):
            raise SettingError(f"sync_bn=true synchronises torch's BatchNorm2d alone, and this model has "
                               f"{type(module).__name__}; use sync_bn=false")
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d


def count_images(model: nn.Module, counted: bool) -> None:
    "Whether the images of this process are part of the next batch's mean and variance."
    for module in model.modules():
        if type(module) is SyncedBatchNorm2d:
            module.counted = counted


def undo_synchronise(model: nn.Module) -> None:
    for module in model.modules():
        if type(module) is SyncedBatchNorm2d:
            module.__class__ = nn.BatchNorm2d
