"""Net: unpadded and dilated convolutions, 193,280 parameters; its receptive field is 33 pixels, not over 44."""

from timm.models import generate_default_cfgs, register_model
from torch import nn

from cifar_fast.models.layers import CifarModel, cifar_cfg, create

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


class CifarStrided(CifarModel):
    """Three blocks without padding, one with; for images of at least 15×15 pixels.

    The published AvgPool 5 covers the whole 5×5 feature map of a 32×32 image: it is the global pool. Here it is one
    for images of any size.
    """

    def __init__(
        self,
        in_chans: int = 3,
        unit_drop_rate: float = 0.05,  # after every unit, as published
        **head,  # as `CifarModel` takes them: num_classes, drop_rate (none published), global_pool
    ):
        def unit(i, o, k=3, drop=True, **kwargs):
            # ReLU before BN: the order is not published, but the unit is described in this one.
            layers = [nn.Conv2d(i, o, k, bias=False, **kwargs), nn.ReLU(inplace=True), nn.BatchNorm2d(o)]
            return nn.Sequential(*layers, *([nn.Dropout(unit_drop_rate)] if drop else []))

        def reduce():
            # A convolution alone: only this gives the published parameters and activation memory.
            return nn.Conv2d(64, 32, 1, bias=False)

        features = nn.Sequential()
        features.add_module("c1", nn.Sequential(unit(in_chans, 32), unit(32, 64), unit(64, 64, dilation=2)))
        depthwise = unit(32, 32, drop=False, padding=1, groups=32)
        features.add_module("c2", nn.Sequential(reduce(), depthwise, unit(32, 64, 1), unit(64, 64)))
        features.add_module("c3", nn.Sequential(unit(64, 64, stride=2), reduce(), nn.AvgPool2d(2)))
        features.add_module("c4", nn.Sequential(unit(32, 64, padding=1), unit(64, 64, padding=1)))
        levels = [("c1", 64, 1), ("c2", 64, 1), ("c3", 32, 4), ("c4", 64, 4)]
        super().__init__(features, levels, in_chans, conv_head=True, head_bias=False, **head)


default_cfgs = generate_default_cfgs({
    "cifar_strided": cifar_cfg(pool_size=(5, 5), first_conv="features.c1.0.0", min_input_size=(3, 15, 15)),
})


@register_model
def cifar_strided(pretrained: bool = False, **kwargs) -> CifarStrided:
    return create(CifarStrided, "cifar_strided", pretrained, **kwargs)
