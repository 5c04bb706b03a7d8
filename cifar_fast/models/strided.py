"""Net: unpadded and dilated convolutions, 193,280 parameters, receptive field 33 (it breaks that rule)."""

from timm.models import generate_default_cfgs, register_model
from torch import nn

from cifar_fast.models.layers import CifarNet, cifar_cfg, create

PUBLISHED = {
    "name": "Net",
    "parameters": 193_280,
    "receptive_field": 44,  # with its global pool counted, which the rule does not do
    "accuracy": 87.37,
    "epochs": 30,
    "hardware": "Tesla T4, 17 min",
    "seconds": 1_020,
    "note": "best at epoch 29; last epoch 87.28",
}


class CifarStrided(CifarNet):
    """Three blocks without padding and one with; images from 15×15 up.

    Its final AvgPool 5 covers the whole 5×5 map of a 32×32 image: it is the global pool, so the head pools
    whatever map an image of another size leaves.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,  # before the classifier; the published network has none there
        unit_drop_rate: float = 0.05,  # after every unit, as published
    ):
        def unit(i, o, k=3, drop=True, **kwargs):
            # ReLU before BN: the order is not published; this is the one in which the unit is described.
            layers = [nn.Conv2d(i, o, k, bias=False, **kwargs), nn.ReLU(inplace=True), nn.BatchNorm2d(o)]
            return nn.Sequential(*layers, *([nn.Dropout(unit_drop_rate)] if drop else []))

        def reduce():
            # A bare convolution: only so do the published parameters and activation memory come out.
            return nn.Conv2d(64, 32, 1, bias=False)

        features = nn.Sequential()
        features.add_module("c1", nn.Sequential(unit(in_chans, 32), unit(32, 64), unit(64, 64, dilation=2)))
        depthwise = unit(32, 32, drop=False, padding=1, groups=32)
        features.add_module("c2", nn.Sequential(reduce(), depthwise, unit(32, 64, 1), unit(64, 64)))
        features.add_module("c3", nn.Sequential(unit(64, 64, stride=2), reduce(), nn.AvgPool2d(2)))
        features.add_module("c4", nn.Sequential(unit(32, 64, padding=1), unit(64, 64, padding=1)))
        super().__init__(features, 64, num_classes, drop_rate, conv_head=True, head_bias=False)


default_cfgs = generate_default_cfgs({
    "cifar_strided": cifar_cfg(pool_size=(5, 5), first_conv="features.c1.0.0", min_input_size=(3, 15, 15)),
})


@register_model
def cifar_strided(pretrained: bool = False, **kwargs) -> CifarStrided:
    return create(CifarStrided, "cifar_strided", pretrained, **kwargs)
