"""cifar_fast: fast.ai-style recipes for the best image classifier under a hard budget.

Nothing heavy is imported here, so that `python -m cifar_fast --help` answers at once;
`from cifar_fast.all import *` brings the names that a recipe or a notebook needs.
"""

import os

__version__ = "0.1.0"

# OpenMP threads that wait by spinning make a step many times slower as soon as another process needs a core.
# libgomp reads this when it is loaded, so it has an effect only where torch is imported after this package.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
