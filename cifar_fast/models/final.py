"""Few, large, dense convolutions, which a CPU runs fast. It was the model of recipe `final` before `cifar_mirror`."""

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


class CifarFinal(CifarModel):
    """3×3 stem at 32×32 → dense residual blocks at 16×16 → dilated, then separable residual blocks at 8×8.

    Only the narrow stem runs at full resolution: there a CPU pays for memory traffic more than for arithmetic.
    """

    def __init__(
        self,
        in_chans: int = 3,
        widths: tuple[int, int, int] = (16, 48, 72),  # channels at 32×32, 16×16 and 8×8
        depths: tuple[int, int, int] = (1, 1, 3),  # residual blocks: dense, dilated, separable
        act_layer: str = "relu",
        stem_scale: int = 1,  # stride of the stem; see `layers.stem_scale`
        **head,  # as `CifarModel` takes them: num_classes, drop_rate, global_pool
    ):
        stem, w1, w2 = widths
        dense, dilated, light = depths
        act = dict(act_layer=act_layer)

        features = nn.Sequential()
        features.add_module("stem", conv_bn_act(
            in_chans, stem, stem_scale + 2, stride=stem_scale, padding=1, **act))
        features.add_module("stage1", nn.Sequential(
            conv_bn_act(stem, w1, stride=2, **act), *(dense_block(w1, **act) for _ in range(dense))))
        features.add_module("stage2", nn.Sequential(
            conv_bn_act(w1, w2, stride=2, **act), *(dense_block(w2, dilation=2, **act) for _ in range(dilated))))
        features.add_module("stage3", nn.Sequential(
            *(Residual(separable(w2, w2, act_layer=""), act_layer) for _ in range(light))))
        s = stem_scale
        levels = [("stem", stem, s), ("stage1", w1, 2 * s), ("stage2", w2, 4 * s), ("stage3", w2, 4 * s)]
        super().__init__(features, levels, in_chans, **head)


default_cfgs = generate_default_cfgs({
    "cifar_final": cifar_cfg(pool_size=(8, 8), first_conv="features.stem.conv"),
})


@register_model
def cifar_final(pretrained: bool = False, img_size: int = 32, **kwargs) -> CifarFinal:
    "192,642 parameters, 22 million multiply-adds, receptive field 65."
    model_args = dict(widths=(16, 48, 72), depths=(1, 1, 3), stem_scale=stem_scale(img_size))
    return create(CifarFinal, "cifar_final", pretrained, recipe="final arch=cifar_final", img_size=img_size,
                  **dict(model_args, **kwargs))
