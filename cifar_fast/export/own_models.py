"""Models whose classes a recipe file defines: a pickle of one contains the classes themselves."""

from __future__ import annotations

import sys
from contextlib import contextmanager

from cifar_fast.recipe.registry import MODULE_PREFIX


@contextmanager
def recipe_files_by_value():
    """In the block, cloudpickle pickles by value what recipe files define.

    By reference it could be loaded in this process only: no other process can import a recipe file.
    """
    from fastai.learner import cloudpickle

    modules = [module for name, module in list(sys.modules.items()) if name.startswith(MODULE_PREFIX)]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
