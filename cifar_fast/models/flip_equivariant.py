"""Layers that are equivariant to horizontal flips: a model of them predicts the same for an image and its mirror image.

The channels of a feature map come in two halves. Flipping the image flips the map and swaps the halves: what the first
half detects, the second one detects mirrored. (These are group-equivariant convolutions, Cohen and Welling, 2016,
arXiv:1602.07576, for the group of two elements: identity and flip.) Half of the kernels follow from the other half, so
that the same number of parameters buys twice the channels, and no detail has to be learned once for each side.

The first layer lifts an image to two halves (`lifting=True`), `GroupPooling` at the end reduces them to one.
"""

import torch
from timm.layers import get_padding
from torch import Tensor, fx, nn

from cifar_fast.models.layers import Residual, activation


class FlipEquivariantConv2d(nn.Conv2d):
    """A flip-equivariant convolution (N, in, H, W) → (N, out, h, w); half of its kernels are weights.

    The kernels of the second half are those of the first one, flipped, with the halves of the input swapped. Odd
    kernels at stride 1 keep the size. At stride s only kernels of s, s + 2, … lie centred on what they read, and only
    on maps whose width is a multiple of s; the width is not checked here.
    ValueError for other kernels and strides, and for channels that have no halves.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,  # both halves together
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,  # or as many as in_channels and out_channels: depthwise
        lifting: bool = False,  # the input is an image, whose channels have no halves
    ):
        depthwise = groups > 1
        halves = not out_channels % 2 and (lifting or not in_channels % 2)
        if not halves or (depthwise and (lifting or not groups == in_channels == out_channels)):
            raise ValueError(f"{in_channels} → {out_channels} channels in {groups} groups have no two halves; a "
                             f"flip-equivariant convolution takes even numbers, in one group or depthwise")
        if kernel_size < stride or (kernel_size - stride) % 2 or (stride > 1 and dilation > 1):
            raise ValueError(f"a kernel of {kernel_size} with dilation {dilation} at stride {stride} is not "
                             f"flip-equivariant; take one as large as the stride or larger by an even number, dilated "
                             f"at stride 1 only")
        padding = get_padding(kernel_size, dilation=dilation) if stride == 1 else (kernel_size - stride) // 2
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.lifting = lifting
        self.weight = nn.Parameter(self.weight.detach()[:out_channels // 2].clone())

    def kernels(self) -> Tensor:
        "Those of both halves, (out, in / groups, k, k)."
        swapped = self.weight
        if self.groups == 1 and not self.lifting:  # a depthwise kernel reads one channel, an image has no halves
            swapped = swapped.roll(self.in_channels // 2, 1)
        return torch.cat([self.weight, swapped.flip(-1)])

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.kernels(), None)

    @torch.no_grad()
    def plain(self) -> nn.Conv2d:
        "As a convolution whose kernels are all weights, for `fold`."
        weight = self.kernels()
        conv = nn.Conv2d(self.in_channels, self.out_channels, self.kernel_size, self.stride, self.padding,
                         self.dilation, self.groups, bias=False, device=weight.device, dtype=weight.dtype)
        conv.weight.copy_(weight)
        return conv.eval()


# The best layout depends on the memory format, a branch that torch.fx cannot trace: `fx.wrap` keeps these whole.

@fx.wrap
def merge_halves(x: Tensor) -> Tensor:
    "(N, C, H, W) → a view with C / 2 channels: (2 N, C / 2, H, W), or (N, C / 2, H, 2 W) where channels are last."
    n, c, h, w = x.shape
    if x.is_contiguous():
        return x.view(2 * n, c // 2, h, w)
    return x.permute(0, 2, 3, 1).reshape(n, h, 2 * w, c // 2).permute(0, 3, 1, 2)


@fx.wrap
def split_halves(merged: Tensor, like: Tensor) -> Tensor:
    "The inverse of `merge_halves(like)`."
    n, c, h, w = like.shape
    if like.is_contiguous():
        return merged.view(n, c, h, w)
    return merged.permute(0, 2, 3, 1).reshape(n, h, w, c).permute(0, 3, 1, 2)


@fx.wrap
def mean_of_halves(x: Tensor) -> Tensor:
    "(N, C, H, W) → (N, C / 2, H, W)."
    if x.is_contiguous():
        return x.unflatten(1, (2, -1)).mean(1)
    # Channels stay last in the gradient too; otherwise every residual block before it would read across memory.
    return x.permute(0, 2, 3, 1).unflatten(-1, (2, -1)).mean(-2).permute(0, 3, 1, 2)


class GroupPooling(nn.Module):
    "(N, C, H, W) → (N, C / 2, H, W): the mean of both halves. Flipping the image flips it and changes nothing else."

    def forward(self, x: Tensor) -> Tensor:
        return mean_of_halves(x)

    def plain(self) -> nn.Module:
        "Without the branch on the memory format, for `fold`."
        return MeanOfHalves()


class MeanOfHalves(nn.Module):
    "`GroupPooling` in two operations that every converter knows."

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, 1)
        return (one + other) * 0.5


class FlipEquivariantConvBnAct(nn.Module):
    "Convolution → batch norm → activation. Both halves share the statistics, scales and shifts of the batch norm."

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        kernel_size: int = 3,
        act_layer: str = "relu",  # timm's name; "" for no activation
        **kwargs,  # as `FlipEquivariantConv2d` takes them
    ):
        super().__init__()
        self.conv = FlipEquivariantConv2d(in_chs, out_chs, kernel_size, **kwargs)
        self.bn = nn.BatchNorm2d(out_chs // 2)
        self.act = activation(act_layer) if act_layer else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.act(split_halves(self.bn(merge_halves(x)), x))

    def plain(self) -> nn.Sequential:
        "With a batch norm of all channels, whose halves are the same, for `fold`."
        bn = nn.BatchNorm2d(self.conv.out_channels, self.bn.eps)
        bn.load_state_dict({name: value.repeat(2) if value.ndim else value
                            for name, value in self.bn.state_dict().items()})
        return nn.Sequential(self.conv.plain(), bn.to(self.bn.weight), self.act).eval()


def flip_equivariant_separable(width: int, act_layer: str = "relu", dilation: int = 1) -> Residual:
    "Depthwise 3×3 → pointwise 1×1 → batch norm, with a shortcut."
    return Residual(nn.Sequential(
        FlipEquivariantConv2d(width, width, dilation=dilation, groups=width),
        FlipEquivariantConvBnAct(width, width, 1, act_layer=""),
    ), act_layer)
