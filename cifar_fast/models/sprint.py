"""A smaller model for a short schedule, within the standard budget."""

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


class CifarSprint(CifarModel):
    """Overlapping 4×4 stem to 16×16 → dense convolutions at 8×8, the last one dilated → a separable residual block.

    Half of the multiply-adds are spent at 8×8, where a dense convolution costs a CPU little memory traffic.
    """

    def __init__(
        self,
        in_chans: int = 3,
        widths: tuple[int, int, int] = (32, 48, 64),  # channels at 16×16, at the step to 8×8, and from there on
        depths: tuple[int, int] = (1, 1),  # residual blocks: dilated, separable
        act_layer: str = "relu",
        stem_scale: int = 1,  # half of the stem's stride; see `layers.stem_scale`
        **head,  # as `CifarModel` takes them: num_classes, drop_rate, global_pool
    ):
        stem, w1, w2 = widths
        dilated, light = depths
        act = dict(act_layer=act_layer)
        features = nn.Sequential()
        features.add_module("stem", conv_bn_act(
            in_chans, stem, 2 * stem_scale + 2, stride=2 * stem_scale, padding=1, **act))
        features.add_module("down", conv_bn_act(stem, w1, stride=2, **act))
        features.add_module("widen", conv_bn_act(w1, w2, **act))
        features.add_module("dilated", nn.Sequential(
            *(dense_block(w2, dilation=2, **act) for _ in range(dilated))))
        features.add_module("light", nn.Sequential(
            *(Residual(separable(w2, w2, act_layer=""), act_layer) for _ in range(light))))
        s = stem_scale
        levels = [("stem", stem, 2 * s), ("widen", w2, 4 * s), ("dilated", w2, 4 * s), ("light", w2, 4 * s)]
        super().__init__(features, levels, in_chans, **head)


default_cfgs = generate_default_cfgs({
    "cifar_sprint": cifar_cfg(pool_size=(8, 8), first_conv="features.stem.conv"),
})


@register_model
def cifar_sprint(pretrained: bool = False, img_size: int = 32, **kwargs) -> CifarSprint:
    "122,730 parameters, 8 million multiply-adds, receptive field 48."
    model_args = dict(widths=(32, 48, 64), depths=(1, 1), stem_scale=stem_scale(img_size))
    return create(CifarSprint, "cifar_sprint", pretrained, img_size=img_size, **dict(model_args, **kwargs))
