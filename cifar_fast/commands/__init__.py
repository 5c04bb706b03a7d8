"""The commands: one small function each, which takes the parsed arguments and returns the exit code or None for 0.

torch and fastai are imported inside them, never at the top: `--help` and a slip of the keyboard answer at once.
"""

from .checks import bench, completion, doctor
from .models import evaluate, export, predict, serve, trust_file
from .showing import compare, pictures, report, results
from .training import audit, copy, lr_find, recipe, recipes

COMMANDS = {"recipes": recipes, "recipe": recipe, "copy": copy, "audit": audit, "lr_find": lr_find,
            "export": export, "trust": trust_file, "predict": predict, "serve": serve, "evaluate": evaluate,
            "results": results, "report": report, "pictures": pictures, "compare": compare,
            "doctor": doctor, "bench": bench, "completion": completion}
"Name → what it runs, in the order of --help."

__all__ = ["COMMANDS"]
