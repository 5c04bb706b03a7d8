"""The commands: one small function each, which takes the parsed arguments and returns the exit code or None for 0.

torch and fastai are imported inside them, never at the top: `--help` and a slip of the keyboard answer at once.
"""

from cifar_fast.cli.checks import bench, completion, doctor
from cifar_fast.cli.models import evaluate, export, predict, serve, trust_file
from cifar_fast.cli.showing import compare, figures, report, results
from cifar_fast.cli.training import audit, copy, lr_find, recipe, recipes

COMMANDS = {"recipes": recipes, "recipe": recipe, "copy": copy, "audit": audit, "lr_find": lr_find,
            "export": export, "trust": trust_file, "predict": predict, "serve": serve, "evaluate": evaluate,
            "results": results, "report": report, "figures": figures, "compare": compare,
            "doctor": doctor, "bench": bench, "completion": completion}
"Name → what it runs, in the order of --help."

__all__ = ["COMMANDS"]
