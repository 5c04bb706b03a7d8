"""`cifar_mirror` with maps of 16×16 to its end: about as many parameters, 2.3 times the multiply-adds."""

from timm.models import generate_default_cfgs, register_model

from cifar_fast.models.layers import cifar_cfg, create, side_of, stem_scale
from cifar_fast.models.mirror import CifarMirror, require_exact
from cifar_fast.models.scaling import widths_within

WIDTHS = (16, 48, 112)


class CifarMirrorDilated(CifarMirror):
    "`CifarMirror` with an output stride of 2, and the widths at which it has 200,000 parameters for images of 32×32."

    def __init__(
        self,
        in_chans: int = 3,
        widths: tuple[int, int, int] = WIDTHS,  # channels at 32×32, then at 16×16 before and after the dilation
        **kwargs,  # as `CifarMirror` takes them
    ):
        super().__init__(in_chans, widths, output_stride=2, **kwargs)


default_cfgs = generate_default_cfgs({
    "cifar_mirror_dilated": cifar_cfg(pool_size=(16, 16), first_conv="features.stem.conv"),
})


@register_model
def cifar_mirror_dilated(pretrained: bool = False, img_size: int = 32, **kwargs) -> CifarMirrorDilated:
    """199,858 parameters, 102 million multiply-adds, receptive field 66. ValueError for sizes at which it is not exact.

    For larger images its stem has up to 1,728 parameters more, which `scaled_widths` takes from the other layers.
    """
    require_exact(side_of(img_size))
    model_args = dict(widths=WIDTHS, stem_scale=stem_scale(img_size))
    return create(CifarMirrorDilated, "cifar_mirror_dilated", pretrained, recipe="final arch=cifar_mirror_dilated",
                  img_size=img_size, **dict(model_args, **kwargs))


def scaled_widths(max_params: int, num_classes: int, img_size: int) -> tuple[int, ...]:
    "At which it has at most `max_params` parameters; its own where they fit. ValueError where none do."
    def make(widths):
        return CifarMirrorDilated(widths=widths, num_classes=num_classes, stem_scale=stem_scale(img_size))

    return widths_within(max_params, make, WIDTHS)
