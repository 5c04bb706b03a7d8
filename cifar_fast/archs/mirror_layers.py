"""Layers that commute with mirroring: a net of them answers the same for a picture and its mirror image.

The channels of a map come in two halves, (p, q). Mirroring the picture mirrors the map and swaps the halves: q is to
the mirror image what p is to the picture. A convolution that keeps this has one free weight where a plain one has two,
so under a budget of parameters its net may do twice the work, and nothing has to be learned twice, once a side. The
idea is that of group-equivariant convolutions (Cohen and Welling, 2016) for the group of two, left and right.
"""

import math

import torch
import torch.nn.functional as F
from timm.layers import get_act_layer
from torch import Tensor, nn

from .layers import Residual


class MirrorConv2d(nn.Module):
    """A convolution (N, in_chs, H, W) → (N, out_chs, h, w) that commutes with mirroring; no bias.

    The kernels of the second half are those of the first, mirrored, with the input's halves swapped. At stride 2 that
    is exact for even kernels on maps of even width: an odd one reads every second column counted from the left.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,  # both halves together: even
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        depthwise: bool = False,  # each channel for itself
        lift: bool = False,  # the input is a picture, whose channels are no halves
    ):
        super().__init__()
        if out_chs % 2 or (in_chs % 2 and not lift):
            raise ValueError(f"mirrored layers have two halves: {in_chs} → {out_chs} channels cannot be split")
        self.stride, self.dilation, self.lift = stride, dilation, lift
        self.groups = in_chs if depthwise else 1
        self.padding = (dilation * (kernel_size - 1) + (kernel_size % 2 == 1)) // 2 if kernel_size > 1 else 0
        self.weight = nn.Parameter(torch.empty(out_chs // 2, 1 if depthwise else in_chs, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # as nn.Conv2d does

    def kernels(self) -> Tensor:
        "All of them, (out_chs, in_chs or 1, k, k)."
        swapped = self.weight
        if self.groups == 1 and not self.lift:
            swapped = swapped.roll(swapped.shape[1] // 2, 1)
        return torch.cat([self.weight, swapped.flip(-1)])

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernels(), None, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, stride={self.stride}, dilation={self.dilation}, groups={self.groups}"


class MirrorBatchNorm2d(nn.BatchNorm2d):
    "Batch norm of (N, C, H, W) with C / 2 scales, shifts and running statistics, the same for both halves."

    def __init__(self, num_features: int, **kwargs):
        super().__init__(num_features // 2, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        mean, var, weight, bias = (torch.cat([t, t]) for t in (self.running_mean, self.running_var,
                                                               self.weight, self.bias))
        out = F.batch_norm(x, mean, var, weight, bias, self.training, self.momentum, self.eps)
        if self.training:
            with torch.no_grad():  # a batch holds a picture or its mirror image: each half sees its own statistics
                self.running_mean.copy_(mean.unflatten(0, (2, -1)).mean(0))
                self.running_var.copy_(var.unflatten(0, (2, -1)).mean(0))
                self.num_batches_tracked += 1
        return out


class MirrorFold(nn.Module):
    "(N, C, H, W) → (N, C / 2, H, W): the mean of both halves, which mirroring the picture mirrors and no more."

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (2, -1)).mean(1)


def mirror_conv(in_chs: int, out_chs: int, kernel_size: int = 3, act_layer: str = "relu", **kwargs) -> nn.Sequential:
    "Convolution → batch norm → activation; `kwargs` as `MirrorConv2d` takes them, act_layer='' for none."
    layers = nn.Sequential()
    layers.add_module("conv", MirrorConv2d(in_chs, out_chs, kernel_size, **kwargs))
    layers.add_module("bn", MirrorBatchNorm2d(out_chs))
    if act_layer:
        layers.add_module("act", get_act_layer(act_layer)(inplace=True))
    return layers


def mirror_separable(width: int, act_layer: str = "relu") -> Residual:
    "Depthwise 3×3 → pointwise 1×1 → batch norm, with a shortcut."
    return Residual(nn.Sequential(
        MirrorConv2d(width, width, depthwise=True),
        mirror_conv(width, width, 1, act_layer=""),
    ), act_layer)
