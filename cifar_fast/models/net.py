"""CIFAR10Net: full resolution up to the last layer, 199,368 parameters, about 200 million multiply-adds."""

from timm.models import generate_default_cfgs, register_model
from torch import nn

from cifar_fast.models.layers import CifarModel, cifar_cfg, conv_bn_act, create, separable

PUBLISHED = {
    "name": "CIFAR10Net",
    "parameters": 199_368,
    "receptive_field": 49,
    "accuracy": 87.02,
    "epochs": 50,
    "hardware": "CUDA, 38.8 min",
    "seconds": 2_328,
    "note": "best at epoch 48; last epoch 85.52",
}


class CifarFullResolution(CifarModel):
    """Two separable stages, two dilated ones, 1×1 transitions between them; every convolution has a bias.

    The published model ends in LogSoftmax and is trained with negative log-likelihood, which together are
    cross-entropy. This one returns logits, as all models here do, and is trained with cross-entropy.
    """

    def __init__(
        self,
        in_chans: int = 3,
        # Whole channels, after 11 of the 12 units. The rate is not published. With 11 in a row the usual 0.1 would
        # leave 0.9^11 = 31 % of the paths without a drop, 0.05 leaves 57 %.
        unit_drop_rate: float = 0.05,
        **head,  # as `CifarModel` takes them: num_classes, drop_rate (none published), global_pool
    ):
        def ds(i, o):
            return separable(i, o, bias=True, drop=nn.Dropout2d(unit_drop_rate))

        def dc(i, o, dilation, drop=True):
            drop = nn.Dropout2d(unit_drop_rate) if drop else None
            return conv_bn_act(i, o, dilation=dilation, bias=True, drop=drop)

        def transition(i, o, stride=1):
            return conv_bn_act(i, o, 1, stride, bias=True)

        features = nn.Sequential()
        features.add_module("stage1", nn.Sequential(ds(in_chans, 32), ds(32, 64), ds(64, 128)))
        features.add_module("transition1", transition(128, 32))
        features.add_module("stage2", nn.Sequential(ds(32, 32), ds(32, 64), ds(64, 128)))
        features.add_module("transition2", transition(128, 32))
        features.add_module("stage3", nn.Sequential(dc(32, 32, 2), dc(32, 64, 2), dc(64, 128, 2)))
        features.add_module("transition3", transition(128, 16))
        features.add_module("stage4", nn.Sequential(dc(16, 32, 4), dc(32, 64, 4), dc(64, 64, 4, drop=False)))
        features.add_module("transition4", transition(64, 16, stride=2))
        levels = [("stage1", 128, 1), ("stage2", 128, 1), ("stage3", 128, 1), ("transition4", 16, 2)]
        super().__init__(features, levels, in_chans, **head)


default_cfgs = generate_default_cfgs({
    "cifar_net": cifar_cfg(pool_size=(16, 16), first_conv="features.stage1.0.0"),
})


@register_model
def cifar_net(pretrained: bool = False, **kwargs) -> CifarFullResolution:
    return create(CifarFullResolution, "cifar_net", pretrained, **kwargs)
