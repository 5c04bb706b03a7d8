"""MobileNet-like separable units, the last one dilated: 155,434 parameters, receptive field 79."""

from timm.models import generate_default_cfgs, register_model
from torch import nn

from cifar_fast.models.layers import CifarNet, cifar_cfg, conv_bn_act, create, separable

PUBLISHED = {
    "name": "MobileNet-inspired",
    "parameters": 155_434,
    "receptive_field": 79,
    "accuracy": 87.25,
    "epochs": 80,
    "hardware": "CUDA, time not stated",
    "note": "best at epoch 70; last epoch 87.20",
}


class CifarMobile(CifarNet):
    "One convolution, then separable units: (output channels, stride, dilation) each."

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        # Before the classifier. Its text mentions dropout without a rate or a place; its training accuracy
        # ends above its test accuracy (87.45 and 87.20), so it cannot have been strong.
        drop_rate: float = 0.1,
        stem_width: int = 32,
        units: tuple[tuple[int, int, int], ...] = (),
    ):
        features = nn.Sequential()
        features.add_module("stem", conv_bn_act(in_chans, stem_width))
        i = stem_width
        for n, (o, stride, dilation) in enumerate(units):
            features.add_module(f"unit{n + 1}", separable(i, o, stride, dilation))
            i = o
        super().__init__(features, i, num_classes, drop_rate, conv_head=True)


default_cfgs = generate_default_cfgs({
    "cifar_mobile": cifar_cfg(pool_size=(4, 4), first_conv="features.stem.conv"),
})


@register_model
def cifar_mobile(pretrained: bool = False, **kwargs) -> CifarMobile:
    units = (
        (32, 1, 1), (64, 2, 1), (64, 1, 1), (128, 2, 1), (128, 1, 1), (192, 2, 1), (192, 1, 1), (256, 1, 2),
    )
    return create(CifarMobile, "cifar_mobile", pretrained, **dict(dict(units=units), **kwargs))
