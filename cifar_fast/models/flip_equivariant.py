"""Layers that commute with mirroring: a net of them answers the same for an image and its mirror image.

The channels of a map come in two halves, (p, q). Mirroring the image mirrors the map and swaps the halves: q is to
the mirror image what p is to the image. A convolution that keeps this has one free weight where a plain one has two,
so under a budget of parameters its net may do twice the work, and nothing has to be learned twice, once a side. The
idea is that of group-equivariant convolutions (Cohen and Welling, 2016) for the group of two, left and right.
"""

import torch
from timm.layers import get_padding
from torch import Tensor, nn

from cifar_fast.models.layers import Residual, activation


class FlipEquivariantConv2d(nn.Conv2d):
    """A convolution (N, in, H, W) → (N, out, h, w) that commutes with mirroring. Half of its kernels are weights.

    The kernels of the second half are those of the first, mirrored, with the input's halves swapped; the size is kept
    at stride 1 by odd kernels. At stride 2 only even kernels, on maps of even width, lie centred on what they read. The
    width is not checked: images of 32 pixels have such maps throughout. ValueError for other kernels and strides, and
    for channels that have no halves.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,  # both halves together
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,  # or as many as in_channels and out_channels: depthwise
        lift: bool = False,  # the input is an image, whose channels are no halves
    ):
        depthwise = groups > 1
        halves = not out_channels % 2 and (lift or not in_channels % 2)
        if not halves or (depthwise and (lift or not groups == in_channels == out_channels)):
            raise ValueError(f"mirrored layers have two halves: {in_channels} → {out_channels} channels "
                             f"in {groups} groups cannot be split into them")
        if stride not in (1, 2) or stride == 2 and (kernel_size % 2 or dilation > 1):
            raise ValueError(f"a kernel of {kernel_size} with dilation {dilation} at stride {stride} does not commute "
                             f"with mirroring; take stride 1, or 2 with an even kernel without dilation")
        padding = get_padding(kernel_size, dilation=dilation)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.lift = lift
        self.weight = nn.Parameter(self.weight.detach()[:out_channels // 2].clone())

    def kernels(self) -> Tensor:
        "All of them, (out, in / groups, k, k)."
        swapped = self.weight
        if self.groups == 1 and not self.lift:  # a depthwise kernel reads one channel, an image has no halves
            swapped = swapped.roll(self.in_channels // 2, 1)
        return torch.cat([self.weight, swapped.flip(-1)])

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.kernels(), None)


class FlipEquivariantBatchNorm2d(nn.BatchNorm2d):
    "Batch norm of (N, C, H, W) whose C / 2 statistics, scales and shifts are those of both halves together."

    def __init__(self, num_channels: int, **kwargs):
        super().__init__(num_channels // 2, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if x.is_contiguous():  # q as more images, and in channels_last as more columns: both are views
            return super().forward(x.view(2 * n, c // 2, h, w)).view(x.shape)
        both = x.permute(0, 2, 3, 1).reshape(n, h, 2 * w, c // 2).permute(0, 3, 1, 2)
        return super().forward(both).permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)


class GroupPooling(nn.Module):
    "(N, C, H, W) → (N, C / 2, H, W): the mean of both halves, which mirroring the image mirrors and no more."

    def forward(self, x: Tensor) -> Tensor:
        if x.is_contiguous():
            return x.unflatten(1, (2, -1)).mean(1)
        # Channels stay last in the gradient too, which on a CPU all residual blocks before would else read across.
        return x.permute(0, 2, 3, 1).unflatten(-1, (2, -1)).mean(-2).permute(0, 3, 1, 2)


def flip_equivariant_conv(
    in_chs: int, out_chs: int, kernel_size: int = 3, act_layer: str = "relu", **kwargs,
) -> nn.Sequential:
    "Convolution → batch norm → activation; `kwargs` as `FlipEquivariantConv2d` takes them, act_layer='' for none."
    layers = nn.Sequential()
    layers.add_module("conv", FlipEquivariantConv2d(in_chs, out_chs, kernel_size, **kwargs))
    layers.add_module("bn", FlipEquivariantBatchNorm2d(out_chs))
    if act_layer:
        layers.add_module("act", activation(act_layer))
    return layers


def flip_equivariant_separable(width: int, act_layer: str = "relu") -> Residual:
    "Depthwise 3×3 → pointwise 1×1 → batch norm, with a shortcut."
    return Residual(nn.Sequential(
        FlipEquivariantConv2d(width, width, groups=width),
        flip_equivariant_conv(width, width, 1, act_layer=""),
    ), act_layer)
