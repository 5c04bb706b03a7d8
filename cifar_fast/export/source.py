"""Copies the recipe file that defines a run's model into the run's folder."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from timm.models import model_entrypoint

from cifar_fast.export.files import SOURCE
from cifar_fast.recipe.registry import MODULE_PREFIX


def copy_source(arch: str, folder: Path) -> str | None:
    "Copy the recipe file that registers `arch` into `folder`; returns its name, None where no recipe file does."
    module = model_entrypoint(arch).__module__
    if not module.startswith(MODULE_PREFIX):
        return None
    path = Path(sys.modules[module].__file__)
    shutil.copyfile(path, folder / SOURCE)
    return path.name
