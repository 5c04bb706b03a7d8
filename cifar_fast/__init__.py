"""cifar_fast: fast.ai-style recipes for the best image classifier under a hard budget.

Nothing heavy is imported here, so that `python -m cifar_fast --help` answers at once;
`from cifar_fast.all import *` brings the names that a recipe or a notebook needs.
"""

__version__ = "0.1.0"
