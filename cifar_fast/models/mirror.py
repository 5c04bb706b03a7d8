"""The model of recipe `final`: it predicts the same for an image and its mirror image, by construction."""

from functools import partial

from timm.models import generate_default_cfgs, register_model
from torch import nn

from cifar_fast.models.flip_equivariant import FlipEquivariantConvBnAct, GroupPooling, flip_equivariant_separable
from cifar_fast.models.layers import CifarModel, cifar_cfg, create, dense_block


class CifarMirror(CifarModel):
    """The stages of `CifarFinal` in flip-equivariant layers: half the parameters a channel, spent on more channels.

    3×3 stem at 32×32 → dense residual blocks at 16×16 → dilated, then separable residual blocks at 8×8 → group
    pooling. The stages begin with 4×4 kernels, since odd ones at stride 2 are not flip-equivariant. Exact for images
    whose width is a multiple of four.
    """

    def __init__(
        self,
        in_chans: int = 3,
        widths: tuple[int, int, int] = (16, 48, 104),  # channels at 32×32, 16×16 and 8×8, both halves together
        depths: tuple[int, int, int] = (2, 1, 2),  # residual blocks: dense, dilated, separable
        act_layer: str = "silu",
        **head,  # as `CifarModel` takes them: num_classes, drop_rate, global_pool
    ):
        stem, w1, w2 = widths
        dense, dilated, light = depths
        act = dict(act_layer=act_layer)
        block = partial(dense_block, unit=FlipEquivariantConvBnAct, **act)

        features = nn.Sequential()
        features.add_module("stem", FlipEquivariantConvBnAct(in_chans, stem, lifting=True, **act))
        features.add_module("stage1", nn.Sequential(
            FlipEquivariantConvBnAct(stem, w1, 4, stride=2, **act), *(block(w1) for _ in range(dense))))
        features.add_module("stage2", nn.Sequential(
            FlipEquivariantConvBnAct(w1, w2, 4, stride=2, **act), *(block(w2, dilation=2) for _ in range(dilated))))
        features.add_module("stage3", nn.Sequential(*(flip_equivariant_separable(w2, **act) for _ in range(light))))
        features.add_module("group_pool", GroupPooling())
        levels = [("stem", stem, 1), ("stage1", w1, 2), ("stage2", w2, 4), ("group_pool", w2 // 2, 4)]
        super().__init__(features, levels, in_chans, **head)


default_cfgs = generate_default_cfgs({
    "cifar_mirror": cifar_cfg(pool_size=(8, 8), first_conv="features.stem.conv"),
})


@register_model
def cifar_mirror(pretrained: bool = False, **kwargs) -> CifarMirror:
    "198,170 parameters, 44 million multiply-adds, receptive field 68."
    model_args = dict(widths=(16, 48, 104), depths=(2, 1, 2))
    return create(CifarMirror, "cifar_mirror", pretrained, recipe="final", **dict(model_args, **kwargs))
