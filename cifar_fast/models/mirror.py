"""The model of recipe `final`: it predicts the same for an image and its mirror image, by construction."""

from functools import partial

from timm.models import generate_default_cfgs, register_model
from torch import nn

from cifar_fast.models.flip_equivariant import FlipEquivariantConvBnAct, GroupPooling, flip_equivariant_separable
from cifar_fast.models.layers import (
    CifarModel,
    cifar_cfg,
    create,
    dense_block,
    side_of,
    stem_scale,
)
from cifar_fast.models.scaling import widths_within

WIDTHS = (16, 48, 104)


class CifarMirror(CifarModel):
    """The stages of `CifarFinal` in flip-equivariant layers: half the parameters a channel, spent on more channels.

    3×3 stem at 32×32 → dense residual blocks at 16×16 → dilated, then separable residual blocks at 8×8 → group
    pooling. The stages begin with 4×4 kernels, since odd ones at stride 2 are not flip-equivariant. Exact for images
    whose width is a multiple of four times `stem_scale`. For larger images the stem strides more, the maps keep sizes.

    With `output_stride=2` the maps stay at 16×16 to the end: a 3×3 kernel stands for the second strided one, and twice
    the dilation after it keeps what each kernel reads (Yu, Koltun and Funkhouser, 2017, arXiv:1705.09914).
    """

    def __init__(
        self,
        in_chans: int = 3,
        widths: tuple[int, int, int] = WIDTHS,  # channels at 32×32, 16×16 and 8×8, both halves together
        depths: tuple[int, int, int] = (2, 1, 2),  # residual blocks: dense, dilated, separable
        act_layer: str = "silu",
        stem_scale: int = 1,  # stride of the stem; see `layers.stem_scale`
        output_stride: int = 4,  # of the last map, times `stem_scale`: 4 or 2
        **head,  # as `CifarModel` takes them: num_classes, drop_rate, global_pool
    ):
        if output_stride not in (2, 4):
            raise ValueError(f"output_stride={output_stride}: it is built for 4 and for 2")
        stem, w1, w2 = widths
        dense, dilated, light = depths
        stride = output_stride // 2  # of stage 2
        rate = 2 // stride  # by which everything after it is dilated more
        act = dict(act_layer=act_layer)
        block = partial(dense_block, unit=FlipEquivariantConvBnAct, **act)

        features = nn.Sequential()
        features.add_module("stem", FlipEquivariantConvBnAct(
            in_chans, stem, stem_scale + 2, stride=stem_scale, lifting=True, **act))
        features.add_module("stage1", nn.Sequential(
            FlipEquivariantConvBnAct(stem, w1, 4, stride=2, **act), *(block(w1) for _ in range(dense))))
        features.add_module("stage2", nn.Sequential(
            FlipEquivariantConvBnAct(w1, w2, stride + 2, stride=stride, **act),
            *(block(w2, dilation=2 * rate, first_dilation=rate) for _ in range(dilated))))
        features.add_module("stage3", nn.Sequential(*(
            flip_equivariant_separable(w2, dilation=rate, **act) for _ in range(light))))
        features.add_module("group_pool", GroupPooling())
        s = stem_scale
        last = output_stride * s
        levels = [("stem", stem, s), ("stage1", w1, 2 * s), ("stage2", w2, last), ("group_pool", w2 // 2, last)]
        super().__init__(features, levels, in_chans, **head)


default_cfgs = generate_default_cfgs({
    "cifar_mirror": cifar_cfg(pool_size=(8, 8), first_conv="features.stem.conv"),
})


@register_model
def cifar_mirror(pretrained: bool = False, img_size: int = 32, **kwargs) -> CifarMirror:
    "198,170 parameters, 44 million multiply-adds, receptive field 68. ValueError for sizes at which it is not exact."
    require_exact(side_of(img_size))
    model_args = dict(widths=WIDTHS, depths=(2, 1, 2), stem_scale=stem_scale(img_size))
    return create(CifarMirror, "cifar_mirror", pretrained, recipe="final", img_size=img_size,
                  **dict(model_args, **kwargs))


def scaled_widths(max_params: int, num_classes: int, img_size: int) -> tuple[int, ...]:
    "At which it has at most `max_params` parameters; its own where they fit. ValueError where none do."
    def make(widths):
        return CifarMirror(widths=widths, num_classes=num_classes, stem_scale=stem_scale(img_size))

    return widths_within(max_params, make, WIDTHS)


def require_exact(side: int) -> None:
    "Raises ValueError for images of `side` pixels in which a map with a stride has an odd width."
    def exact(n):
        return n % (4 * stem_scale(n)) == 0
    if not exact(side):
        near = [next((n for n in sizes if exact(n)), None) for sizes in (range(side, 0, -1), range(side, 2 * side + 8))]
        raise ValueError(f"img_size={side}: its maps would have an odd width, and mirror images another prediction; "
                         f"take {' or '.join(str(n) for n in near if n)}")
