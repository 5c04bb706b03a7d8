"""The command line: `COMMANDS` by name; each is defined with its arguments and examples in a *_commands.py."""

from cifar_fast.cli.data_commands import Duplicates
from cifar_fast.cli.machine_commands import Bench, Completion, Doctor
from cifar_fast.cli.model_commands import Audit, Export, Trust
from cifar_fast.cli.predict_commands import Calibrate, Evaluate, Predict, Serve
from cifar_fast.cli.recipe_commands import Copy, LrFind, Recipe, Recipes
from cifar_fast.cli.run_commands import Compare, Figures, Report, Results
from cifar_fast.cli.sweep_commands import Sweep

COMMANDS = {command.name: command for command in (
    Recipes, Recipe, Sweep, Copy, Audit, LrFind, Export, Trust, Predict, Serve, Evaluate, Calibrate, Duplicates,
    Results, Report, Figures, Compare, Doctor, Bench, Completion)}
"In the order of --help."

__all__ = ["COMMANDS"]
