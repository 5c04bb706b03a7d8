"""MobileNet-like separable units, the last one dilated: 155,434 parameters, receptive field 79."""

from timm.models import generate_default_cfgs, register_model
from torch import nn

from cifar_fast.models.layers import CifarModel, cifar_cfg, conv_bn_act, create, separable

PUBLISHED = {
    "name": "MobileNet-inspired",
    "parameters": 155_434,
    "receptive_field": 79,
    "accuracy": 87.25,
    "epochs": 80,
    "hardware": "CUDA, time not stated",
    "note": "best at epoch 70; last epoch 87.20",
}


class CifarMobile(CifarModel):
    "One convolution, then separable units: (output channels, stride, dilation) each."

    def __init__(
        self,
        in_chans: int = 3,
        # Before the classifier. The published text mentions dropout without a rate or a place; its training accuracy
        # ends above its test accuracy (87.45 and 87.20), so the rate cannot have been high.
        drop_rate: float = 0.1,
        stem_width: int = 32,
        units: tuple[tuple[int, int, int], ...] = (),
        **head,  # as `CifarModel` takes them: num_classes, global_pool
    ):
        features = nn.Sequential()
        features.add_module("stem", conv_bn_act(in_chans, stem_width))
        levels, i, total_stride = [("stem", stem_width, 1)], stem_width, 1
        for n, (o, stride, dilation) in enumerate(units):
            features.add_module(f"unit{n + 1}", separable(i, o, stride, dilation))
            i, total_stride = o, total_stride * stride
            if stride == 1:  # one level a resolution, from its last unit
                levels.pop()
            levels.append((f"unit{n + 1}", o, total_stride))
        super().__init__(features, levels, in_chans, drop_rate=drop_rate, conv_head=True, **head)


default_cfgs = generate_default_cfgs({
    "cifar_mobile": cifar_cfg(pool_size=(4, 4), first_conv="features.stem.conv"),
})


@register_model
def cifar_mobile(pretrained: bool = False, **kwargs) -> CifarMobile:
    units = (
        (32, 1, 1), (64, 2, 1), (64, 1, 1), (128, 2, 1), (128, 1, 1), (192, 2, 1), (192, 1, 1), (256, 1, 2),
    )
    return create(CifarMobile, "cifar_mobile", pretrained, **dict(dict(units=units), **kwargs))
