"""The models. Importing this registers them with timm: `timm.create_model("cifar_final")`."""

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg, is_model, model_entrypoint

from cifar_fast.models.final import cifar_final
from cifar_fast.models.layers import SIDE
from cifar_fast.models.micro import cifar_micro
from cifar_fast.models.mirror import cifar_mirror
from cifar_fast.models.mirror_dilated import cifar_mirror_dilated
from cifar_fast.models.mobile import cifar_mobile
from cifar_fast.models.net import cifar_net
from cifar_fast.models.netv2 import cifar_netv2
from cifar_fast.models.optimized200k import cifar_optimized200k
from cifar_fast.models.sprint import cifar_sprint
from cifar_fast.models.strided import cifar_strided
from cifar_fast.models.teacher import cifar_teacher
from cifar_fast.recipe.registry import recipe_path, run_recipe_file
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.text import nearest

__all__ = [
    "ModelError", "cifar_final", "cifar_micro", "cifar_mirror", "cifar_mirror_dilated", "cifar_mobile", "cifar_net",
    "cifar_netv2", "cifar_optimized200k", "cifar_sprint", "cifar_strided", "cifar_teacher", "create_model",
    "published_claims", "register_from_file", "require_model", "scaled_widths",
]


class ModelError(CifarFastError):
    "A model that timm does not know by this name; the message names what to import."


def published_claims(arch: str) -> dict | None:
    "What the authors of `arch` state about it (module constant PUBLISHED); None where there is nothing."
    if not is_model(arch):
        return None
    return getattr(sys.modules[model_entrypoint(arch).__module__], "PUBLISHED", None)


def register_from_file(path: str | Path) -> None:
    """Run a recipe file, so that timm knows the models which it registers. Raises RecipeError.

    Call it for files of your own only: this runs their code.
    """
    run_recipe_file(recipe_path(str(path)))


def require_model(arch: str) -> None:
    "Raises ModelError, with the names of this project's models, unless timm knows `arch`."
    if not is_model(arch):
        raise ModelError(f"no model is called {arch!r}{nearest(arch, timm.list_models())}; there are "
                         f"{', '.join(timm.list_models('cifar_*'))}, and all others of timm.list_models(). If a file "
                         f"of your own registers it, name that file: --recipe FILE.py, or in Python "
                         f"cifar_fast.models.register_from_file('FILE.py')")


def create_model(
    arch: str,
    num_classes: int,
    size: int = SIDE,  # of the images, pixels
    widths: Sequence[int] | None = None,  # of one that was scaled to a budget, see `scaled_widths`
):
    "`timm.create_model(arch)` for size×size RGB. Raises ModelError, with the reason where it takes no such size."
    require_model(arch)
    try:
        return timm.create_model(arch, num_classes=num_classes, **model_args(arch, size, widths))
    except (ValueError, AssertionError) as e:
        raise ModelError(f"{arch} cannot be built for size={size}: {e}") from e


def model_args(arch: str, size: int, widths: Sequence[int] | None = None) -> dict[str, Any]:
    "What timm is to be told: the size, unless it is a model of convolutions alone that takes any, and the widths."
    takes = "img_size" in inspect.signature(model_entrypoint(arch)).parameters
    fixed = (cfg := get_pretrained_cfg(arch)) and cfg.fixed_input_size
    return {**({"img_size": size} if takes or fixed else {}), **({"widths": list(widths)} if widths else {})}


def scaled_widths(
    arch: str,
    max_params: int,
    num_classes: int,
    size: int = SIDE,
) -> tuple[int, ...] | None:
    """Widths of `arch` for at most `max_params` parameters, by the rule of its module (function `scaled_widths`).

    None where it has no rule. Raises ModelError where no widths fit.
    """
    rule = getattr(sys.modules[model_entrypoint(arch).__module__], "scaled_widths", None)
    try:
        return rule and rule(max_params, num_classes, size)
    except ValueError as e:
        raise ModelError(f"{arch}: {e}") from None
