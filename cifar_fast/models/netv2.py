"""CIFAR10Netv2: plain convolutions with 1×1 transitions, 181,942 parameters, receptive field 81."""

from timm.models import generate_default_cfgs, register_model
from torch import nn

from cifar_fast.models.layers import CifarModel, cifar_cfg, conv_bn_act, create

PUBLISHED = {
    "name": "CIFAR10Netv2",
    "parameters": 195_000,  # "~195K" in its text; its own layer table adds up to 181,942
    "receptive_field": 49,
    "accuracy": 85.21,
    "epochs": 42,
    "hardware": "Apple GPU (MPS), about 45 min",
    "seconds": 2_700,
    "note": "stopped at its target of 85 %; its own layer table says 181,942 parameters",
}


class CifarNetv2(CifarModel):
    "Four blocks at 32, 16, 8 and 4 pixels; every unit is Conv → BN → ReLU → Dropout."

    def __init__(
        self,
        in_chans: int = 3,
        unit_drop_rate: float = 0.1,  # after every unit, as published
        **head,  # as `CifarModel` takes them: num_classes, drop_rate (none published), global_pool
    ):
        def cbr(i, o, k=3, **kwargs):
            return conv_bn_act(i, o, k, drop=nn.Dropout(unit_drop_rate), **kwargs)

        def reduce(i, o):
            return nn.Sequential(cbr(i, o, 1), cbr(o, o, stride=2))

        # The only separable unit with a batch norm between its two convolutions. One activation, at the end,
        # is our reading: the published layer table registers none inside it.
        separable = nn.Sequential(*conv_bn_act(52, 52, groups=52, act_layer=""), *cbr(52, 52, 1))
        features = nn.Sequential()
        features.add_module("block1", nn.Sequential(cbr(in_chans, 16), cbr(16, 16), cbr(16, 16)))
        features.add_module("transition1", reduce(16, 32))
        features.add_module("block2", nn.Sequential(cbr(32, 32), cbr(32, 32), cbr(32, 32)))
        features.add_module("transition2", reduce(32, 52))
        features.add_module("block3", nn.Sequential(cbr(52, 52), cbr(52, 52, dilation=2), separable))
        features.add_module("transition3", reduce(52, 52))
        features.add_module("block4", nn.Sequential(cbr(52, 52), *(cbr(52, 52, 1) for _ in range(3))))
        levels = [("block1", 16, 1), ("block2", 32, 2), ("block3", 52, 4), ("block4", 52, 8)]
        super().__init__(features, levels, in_chans, **head)


default_cfgs = generate_default_cfgs({
    "cifar_netv2": cifar_cfg(pool_size=(4, 4), first_conv="features.block1.0.conv"),
})


@register_model
def cifar_netv2(pretrained: bool = False, **kwargs) -> CifarNetv2:
    return create(CifarNetv2, "cifar_netv2", pretrained, **kwargs)
