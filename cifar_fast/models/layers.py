"""What the models share: a base class with the interface of timm's own models, and a few blocks."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from timm.layers import ClassifierHead, get_act_layer, get_padding
from timm.models import build_model_with_cfg, get_pretrained_cfg
from torch import Tensor, nn

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
LARGEST = 224  # pixels that their stems can take in
SIDE = 32  # pixels of CIFAR-10's images, which all models here are built for


class CifarModel(nn.Module):
    "Features and a head: global pooling, dropout, classifier."

    def __init__(
        self,
        features: nn.Sequential,  # images (N, in_chans, H, W) → the last feature map (N, num_features, h, w)
        levels: Sequence[tuple[str, int, int]],  # what `features_only=True` returns: child, channels, total stride
        in_chans: int = 3,
        num_classes: int = 10,  # 0: no classifier; the model then returns pooled features
        drop_rate: float = 0.0,  # dropout between the global pool and the classifier
        global_pool: str = "avg",  # timm's name; "" with num_classes=0 returns the last feature map
        conv_head: bool = False,  # the classifier is a 1×1 convolution instead of a linear layer
        head_bias: bool = True,
    ):
        super().__init__()
        num_features = levels[-1][1]
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.num_features = num_features
        self.drop_rate = drop_rate
        self.head_bias = head_bias
        self.feature_info = [
            dict(num_chs=channels, reduction=stride, module=f"features.{name}") for name, channels, stride in levels]
        # The order matters: fastai cuts a callable architecture at its last child that holds a pool.
        self.features = features
        self.head = ClassifierHead(num_features, num_classes, global_pool, drop_rate, use_conv=conv_head)
        self._adapt_head()

    def _adapt_head(self):
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()
        if not self.head_bias and self.num_classes > 0:
            self.head.fc.register_parameter("bias", None)

    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        "Number of the part that a parameter is in, as timm's optimizers and `parts.stem_stages_head` group them."
        parts = [name for name, _ in self.features.named_children()]
        return lambda name: parts.index(name.split(".")[1]) if name.startswith("features.") else len(parts)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None):
        "A new classifier, on the device and in the type of the features; `global_pool` stays unless it is given."
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)
        like = next(self.features.parameters())
        self.head.to(like.device, like.dtype).train(self.training)
        self._adapt_head()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def cifar_cfg(
    pool_size: tuple[int, int],  # height and width of the last feature map of a 32×32 image; fastai reads it
    first_conv: str,  # path of the first convolution
    **kwargs,
) -> dict:
    "timm's default_cfg of a model for 32×32 images in ten classes."
    return dict(
        num_classes=10, input_size=(3, SIDE, SIDE), pool_size=pool_size, crop_pct=1.0, interpolation="bicubic",
        mean=CIFAR10_MEAN, std=CIFAR10_STD, first_conv=first_conv, classifier="head.fc", license="apache-2.0",
        **kwargs,
    )


def create(
    model_cls: type[CifarModel],
    name: str,  # registered name, `cifar_…`
    pretrained: bool = False,  # only with weights of your own: RuntimeError otherwise
    *,
    recipe: str | None = None,  # arguments of the command that trains it; default the recipe of the same name
    img_size: int | Sequence[int] | None = None,  # of the images; with it, kwargs hold the `stem_scale` for it
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **kwargs,  # timm's (`features_only`, `out_indices`, `pretrained_cfg_overlay`, …) and the constructor's
) -> nn.Module:
    "Build a registered model as timm does."
    own_weights = kwargs.get("pretrained_cfg") or kwargs.get("pretrained_cfg_overlay")
    if pretrained and not own_weights:
        recipe = recipe or name.removeprefix("cifar_")
        raise RuntimeError(
            f"no pretrained weights are published for {name!r}. Train it (python -m cifar_fast recipe {recipe}), then "
            f"load the run: timm.create_model('local-dir:exports/{recipe.split()[0]}', pretrained=True)"
        )
    if img_size is not None:
        side = side_of(img_size)
        last_map = side // kwargs["stem_scale"] * get_pretrained_cfg(name).pool_size[0] // SIDE
        kwargs["pretrained_cfg_overlay"] = dict(
            input_size=(kwargs.get("in_chans", 3), side, side), pool_size=(last_map, last_map),
            **(kwargs.get("pretrained_cfg_overlay") or {}))
    # Every child of `features` becomes a module of its own in timm's feature extractor.
    feature_cfg = dict(out_indices=(0, 1, 2, 3), flatten_sequential=True)
    with torch.device(device) if device is not None else nullcontext():
        model = build_model_with_cfg(model_cls, name, pretrained, feature_cfg=feature_cfg, **kwargs)
    return model if dtype is None else model.to(dtype)


def side_of(img_size: int | Sequence[int]) -> int:
    "Of timm's `img_size`, pixels. ValueError where it is not square."
    sides = {img_size} if isinstance(img_size, int) else set(img_size)
    if len(sides) > 1 or not min(sides) > 0:
        raise ValueError(f"img_size={img_size}: the images are squares")
    return sides.pop()


def stem_scale(img_size: int | Sequence[int]) -> int:
    """How much more the stem strides than for 32 pixels: the maps after it are 16×16 to 32×32 for larger ones.

    At s times the stride the kernel has s times the stride and two pixels more: neighbouring windows overlap by two
    pixels at any stride, as at 32. A larger kernel would cost parameters that the budget does not have.
    """
    if (side := side_of(img_size)) > LARGEST:
        raise ValueError(f"it takes images of up to {LARGEST} pixels: choose a size from 32 to {LARGEST}, or a "
                         f"model of timm's for larger ones")
    return math.ceil(side / SIDE)


def activation(name: str) -> nn.Module:
    "By timm's name; in place for ReLU alone, since others need their input for the gradient and would copy it."
    return get_act_layer(name)(inplace=name == "relu")


def conv_bn_act(
    in_chs: int,
    out_chs: int,
    kernel_size: int = 3,
    stride: int = 1,
    dilation: int = 1,
    padding: int | None = None,  # None keeps the size at stride 1
    groups: int = 1,
    bias: bool = False,
    act_layer: str = "relu",  # timm's name; "" for no activation
    drop: nn.Module | None = None,
) -> nn.Sequential:
    "Convolution → batch norm → activation → dropout."
    if padding is None:
        padding = get_padding(kernel_size, dilation=dilation)
    conv = nn.Conv2d(in_chs, out_chs, kernel_size, stride, padding, dilation, groups, bias)
    layers = nn.Sequential()
    layers.add_module("conv", conv)
    layers.add_module("bn", nn.BatchNorm2d(out_chs))
    if act_layer:
        layers.add_module("act", activation(act_layer))
    if drop is not None:
        layers.add_module("drop", drop)
    return layers


def separable(
    in_chs: int,
    out_chs: int,
    stride: int = 1,
    dilation: int = 1,
    bias: bool = False,  # in both convolutions
    act_layer: str = "relu",
    drop: nn.Module | None = None,
) -> nn.Sequential:
    "Depthwise 3×3 → pointwise 1×1 → batch norm → activation → dropout: nothing between the two convolutions."
    dw = nn.Conv2d(in_chs, in_chs, 3, stride, dilation, dilation, groups=in_chs, bias=bias)
    pw = conv_bn_act(in_chs, out_chs, 1, bias=bias, act_layer=act_layer, drop=drop)
    return nn.Sequential().append(dw).extend(pw)


class Residual(nn.Module):
    "y = act(body(x) + shortcut(x)); the body ends without an activation, the shortcut is the identity by default."

    def __init__(self, body: nn.Module, act_layer: str = "relu", shortcut: nn.Module | None = None):
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.act = activation(act_layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.shortcut(x))


def dense_block(
    width: int,
    dilation: int = 1,  # of the second convolution
    act_layer: str = "relu",
    unit: Callable[..., nn.Module] = conv_bn_act,  # or another of (in_chs, out_chs, dilation=, act_layer=)
    first_dilation: int = 1,
) -> Residual:
    "Two dense 3×3 convolutions with a shortcut."
    return Residual(nn.Sequential(
        unit(width, width, dilation=first_dilation, act_layer=act_layer),
        unit(width, width, dilation=dilation, act_layer=""),
    ), act_layer)
