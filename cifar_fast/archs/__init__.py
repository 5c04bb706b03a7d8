"""The architectures. Importing this registers them with timm: `timm.create_model("cifar_final")`."""

import sys

from timm.models import is_model, model_entrypoint

from .final import cifar_final
from .mobile import cifar_mobile
from .net import cifar_net
from .netv2 import cifar_netv2
from .optimized200k import cifar_optimized200k
from .sprint import cifar_sprint
from .strided import cifar_strided

__all__ = [
    "cifar_final", "cifar_mobile", "cifar_net", "cifar_netv2", "cifar_optimized200k", "cifar_sprint",
    "cifar_strided", "published",
]


def published(arch: str) -> dict | None:
    "What the authors of architecture `arch` state about it (module constant PUBLISHED); None if nobody does."
    if not is_model(arch):
        return None
    return getattr(sys.modules[model_entrypoint(arch).__module__], "PUBLISHED", None)
