"""Models whose classes a recipe file defines: a pickle of one carries the classes themselves."""

from __future__ import annotations

import sys
from contextlib import contextmanager

from cifar_fast.recipe.registry import MODULE_PREFIX


@contextmanager
def recipe_files_by_value():
    """Meanwhile, cloudpickle writes what recipe files define in full.

    By name it could be found in this process only: no other one can import a recipe file.
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
