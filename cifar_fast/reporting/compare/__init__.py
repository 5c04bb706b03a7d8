"""Runs beside each other: a table, a figure with what others state, two runs image by image, recipes by value."""

from cifar_fast.reporting.compare.diff import recipe_differences, run_differences
from cifar_fast.reporting.compare.paired import Pair, newcombe, pair
from cifar_fast.reporting.compare.points import (
    FLOOR,
    PUBLIC,
    draw,
    draw_sizes,
    figure_points,
    published_points,
)
from cifar_fast.reporting.compare.runs import CompareError, Run, find_runs, lines_of_recipes, lines_of_runs
from cifar_fast.reporting.compare.table import (
    general_notes,
    head,
    ordered,
    records,
    run_notes,
    table,
    table_cells,
    table_csv,
    table_text,
)
from cifar_fast.reporting.compare.words import differences_text, pair_text

__all__ = [
    "CompareError", "Run", "find_runs", "lines_of_runs", "lines_of_recipes",  # what is compared
    "table", "ordered", "table_text", "table_csv", "records",  # a line each
    "head", "table_cells", "general_notes", "run_notes",  # for another table than the terminal's
    "Pair", "pair", "newcombe", "pair_text",  # two runs, image by image
    "PUBLIC", "FLOOR", "published_points", "figure_points", "draw", "draw_sizes",  # what the figure shows
    "recipe_differences", "run_differences", "differences_text",  # two recipes, value by value
]
