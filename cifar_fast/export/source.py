"""Copies the recipe file that defines a run's model into the run's folder."""

from __future__ import annotations

import sys
from pathlib import Path

from timm.models import model_entrypoint

from cifar_fast.export.files import SOURCE
from cifar_fast.recipe.registry import MODULE_PREFIX


def copy_source(arch: str, folder: Path) -> str | None:
    "Copy the recipe file that registers `arch`, as it was run, into `folder`; returns its name, None without one."
    module = model_entrypoint(arch).__module__
    if not module.startswith(MODULE_PREFIX):
        return None
    file = sys.modules[module]
    (folder / SOURCE).write_bytes(file.recipe_source)
    return Path(file.__file__).name
