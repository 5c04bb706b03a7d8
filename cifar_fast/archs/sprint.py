"""A smaller network for a short schedule, legal by every rule."""

from timm.models import generate_default_cfgs, register_model
from torch import nn

from .layers import CifarNet, Residual, cifar_cfg, conv_bn_act, create, separable


class CifarSprint(CifarNet):
    "Patch stem → one convolution to 8×8 → one dilated residual block → separable residual blocks."

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,  # before the classifier
        widths: tuple[int, int] = (32, 80),  # channels at 16×16 and at 8×8
        depth: int = 2,  # separable residual blocks
        act_layer: str = "relu",
    ):
        w1, w2 = widths
        act = dict(act_layer=act_layer)
        features = nn.Sequential()
        features.add_module("stem", conv_bn_act(in_chans, w1, 2, stride=2, padding=0, **act))
        features.add_module("down", conv_bn_act(w1, w2, stride=2, **act))
        dilated = conv_bn_act(w2, w2, dilation=2, act_layer="")
        features.add_module("dilated", Residual(dilated, act_layer))
        features.add_module("light", nn.Sequential(
            *(Residual(separable(w2, w2, act_layer=""), act_layer) for _ in range(depth)),
        ))
        super().__init__(features, w2, num_classes, drop_rate)


default_cfgs = generate_default_cfgs({
    "cifar_sprint": cifar_cfg(pool_size=(8, 8), first_conv="features.stem.conv"),
})


@register_model
def cifar_sprint(pretrained: bool = False, **kwargs) -> CifarSprint:
    model_args = dict(widths=(32, 80), depth=3)
    return create(CifarSprint, "cifar_sprint", pretrained, **dict(model_args, **kwargs))
