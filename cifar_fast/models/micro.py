"""The model of recipe `micro`: for microcontrollers with 96 KB of flash for weights and 12.5 million multiply-adds."""

from timm.models import generate_default_cfgs, register_model
from torch import nn

from cifar_fast.models.layers import (
    CifarModel,
    Residual,
    cifar_cfg,
    conv_bn_act,
    create,
    dense_block,
    separable,
    stem_scale,
)


class CifarMicro(CifarModel):
    """3×3 stem at 32×32 → dense residual blocks at 16×16 → separable residual blocks at 8×8, the first one dilated.

    Plain convolutions: a flip-equivariant one stores both mirror halves on a device, twice its parameters. ReLU costs
    neither time nor memory there, since a convolution applies it as it writes its output.
    """

    def __init__(
        self,
        in_chans: int = 3,
        widths: tuple[int, int, int] = (16, 28, 72),  # channels at 32×32, 16×16 and 8×8
        depths: tuple[int, int] = (2, 6),  # residual blocks: dense, separable
        act_layer: str = "relu",
        stem_scale: int = 1,  # stride of the stem; see `layers.stem_scale`
        **head,  # as `CifarModel` takes them: num_classes, drop_rate, global_pool
    ):
        stem, w1, w2 = widths
        dense, light = depths
        act = dict(act_layer=act_layer)

        features = nn.Sequential()
        features.add_module("stem", conv_bn_act(
            in_chans, stem, stem_scale + 2, stride=stem_scale, padding=1))  # its map is the largest: ReLU adds no other
        features.add_module("stage1", nn.Sequential(
            conv_bn_act(stem, w1, stride=2, **act), *(dense_block(w1, **act) for _ in range(dense))))
        features.add_module("widen", conv_bn_act(w1, w2, stride=2, **act))
        features.add_module("stage2", nn.Sequential(*(
            Residual(separable(w2, w2, dilation=2 if n == 0 else 1, act_layer=""), act_layer) for n in range(light))))
        s = stem_scale
        levels = [("stem", stem, s), ("stage1", w1, 2 * s), ("widen", w2, 4 * s), ("stage2", w2, 4 * s)]
        super().__init__(features, levels, in_chans, **head)


default_cfgs = generate_default_cfgs({
    "cifar_micro": cifar_cfg(pool_size=(8, 8), first_conv="features.stem.conv"),
})


@register_model
def cifar_micro(pretrained: bool = False, img_size: int = 32, **kwargs) -> CifarMicro:
    "87,874 parameters, 12 million multiply-adds, receptive field 81; in int8 91 KB of flash and 23 KB of RAM."
    model_args = dict(widths=(16, 28, 72), depths=(2, 6), stem_scale=stem_scale(img_size))
    return create(CifarMicro, "cifar_micro", pretrained, img_size=img_size, **dict(model_args, **kwargs))
