"""OptimizedCIFAR10Net200K: separable residual blocks, 150,690 parameters, no dilated convolution."""

from timm.models import generate_default_cfgs, register_model
from torch import nn

from cifar_fast.models.layers import CifarModel, Residual, cifar_cfg, conv_bn_act, create, separable

PUBLISHED = {
    "name": "OptimizedCIFAR10Net200K",
    "parameters": 150_690,
    "receptive_field": 67,
    "accuracy": 87.42,
    "epochs": 55,
    "hardware": "GPU, 0.23 h",
    "seconds": 828,
    "note": "its claims disagree: 87.42 % by epoch 2, peak 84.08 % in training, TTA 47.24 %",
}


def efficient_block(i: int, o: int, stride: int = 1) -> Residual:
    "Two separable convolutions; the shortcut is a 1×1 convolution where the shape changes."
    body = nn.Sequential(separable(i, o, stride), separable(o, o, act_layer=""))
    changes = stride != 1 or i != o
    return Residual(body, shortcut=conv_bn_act(i, o, 1, stride, act_layer="") if changes else None)


class CifarOptimized200k(CifarModel):
    "Four stages of separable residual blocks, each with half the resolution and twice the channels of the last."

    def __init__(
        self,
        in_chans: int = 3,
        drop_rate: float = 0.2,  # before the classifier, as published
        widths: tuple[int, ...] = (20, 40, 80, 160),
        **head,  # as `CifarModel` takes them: num_classes, global_pool
    ):
        features = nn.Sequential()
        features.add_module("stem", conv_bn_act(in_chans, widths[0]))
        i = widths[0]
        for n, o in enumerate(widths):
            stride = 1 if n == 0 else 2
            stage = nn.Sequential(efficient_block(i, o, stride), efficient_block(o, o))
            features.add_module(f"stage{n + 1}", stage)
            i = o
        levels = [(f"stage{n + 1}", width, 2**n) for n, width in enumerate(widths)]
        super().__init__(features, levels, in_chans, drop_rate=drop_rate, **head)


default_cfgs = generate_default_cfgs({
    "cifar_optimized200k": cifar_cfg(pool_size=(4, 4), first_conv="features.stem.conv"),
})


@register_model
def cifar_optimized200k(pretrained: bool = False, **kwargs) -> CifarOptimized200k:
    return create(CifarOptimized200k, "cifar_optimized200k", pretrained, **kwargs)
