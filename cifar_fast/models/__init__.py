"""The architectures. Importing this registers them with timm: `timm.create_model("cifar_final")`."""

import sys

import timm
from timm.models import is_model, model_entrypoint

from cifar_fast.models.final import cifar_final
from cifar_fast.models.mirror import cifar_mirror
from cifar_fast.models.mobile import cifar_mobile
from cifar_fast.models.net import cifar_net
from cifar_fast.models.netv2 import cifar_netv2
from cifar_fast.models.optimized200k import cifar_optimized200k
from cifar_fast.models.sprint import cifar_sprint
from cifar_fast.models.strided import cifar_strided
from cifar_fast.utils.text import nearest

__all__ = [
    "cifar_final", "cifar_mirror", "cifar_mobile", "cifar_net", "cifar_netv2", "cifar_optimized200k",
    "cifar_sprint", "cifar_strided", "create_arch", "published", "require_arch",
]


def published(arch: str) -> dict | None:
    "What the authors of architecture `arch` state about it (module constant PUBLISHED); None if nobody does."
    if not is_model(arch):
        return None
    return getattr(sys.modules[model_entrypoint(arch).__module__], "PUBLISHED", None)


def require_arch(arch: str) -> None:
    "Raises ValueError that names the architectures of this project where `arch` is none that timm knows."
    if not is_model(arch):
        known = timm.list_models()
        raise ValueError(f"no architecture is called {arch!r}{nearest(arch, known)}; there are "
                         f"{', '.join(timm.list_models('cifar_*'))}, and what else timm.list_models() knows")


def create_arch(arch: str, num_classes: int):
    "`timm.create_model(arch)` for 32×32 RGB. Raises ValueError."
    require_arch(arch)
    return timm.create_model(arch, num_classes=num_classes)
