"""A large model of plain convolutions, outside of the budget: the teacher of a small one, with `distill=`.

In the manner of the larger airbench models (Jordan, 2024, arXiv:2404.00498), in the blocks of this project.
"""

from timm.models import generate_default_cfgs, register_model
from torch import nn

from cifar_fast.models.layers import CifarModel, Residual, activation, cifar_cfg, conv_bn_act, create, stem_scale


class CifarTeacher(CifarModel):
    """2×2 stem → three groups of three dense 3×3 convolutions, each with a max pool after the first one.

    The other two of a group have a shortcut. Nothing is depthwise, as a CPU or GPU multiplies matrices fastest. For
    larger images the stem strides more.
    """

    def __init__(
        self,
        in_chans: int = 3,
        widths: tuple[int, int, int, int] = (32, 64, 256, 384),  # channels of the stem and of the three groups
        act_layer: str = "relu",
        stem_scale: int = 1,  # stride of the stem
        **head,  # as `CifarModel` takes them: num_classes, drop_rate, global_pool
    ):
        act = dict(act_layer=act_layer)
        stem, *groups = widths
        features = nn.Sequential()
        features.add_module("stem", conv_bn_act(
            in_chans, stem, stem_scale + 1, stride=stem_scale, padding=0, **act))
        for n, (i, o) in enumerate(zip(widths, groups, strict=False), 1):
            features.add_module(f"group{n}", nn.Sequential(
                # The pool comes before the norm, which then has a quarter of the values.
                nn.Conv2d(i, o, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(o), activation(act_layer),
                Residual(nn.Sequential(conv_bn_act(o, o, **act), conv_bn_act(o, o, act_layer="")), act_layer)))
        s = stem_scale
        levels = [("stem", stem, s), *((f"group{n}", o, s * 2**n) for n, o in enumerate(groups, 1))]
        super().__init__(features, levels, in_chans, **head)


default_cfgs = generate_default_cfgs({
    "cifar_teacher": cifar_cfg(pool_size=(3, 3), first_conv="features.stem.conv", min_input_size=(3, 9, 9)),
})


@register_model
def cifar_teacher(pretrained: bool = False, img_size: int = 32, **kwargs) -> CifarTeacher:
    "4,966,730 parameters, 25 times the budget; 193 million multiply-adds, receptive field 79, three max pools."
    model_args = dict(widths=(32, 64, 256, 384), stem_scale=stem_scale(img_size))
    return create(CifarTeacher, "cifar_teacher", pretrained, img_size=img_size, **dict(model_args, **kwargs))
