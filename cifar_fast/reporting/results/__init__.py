"""Results of runs: tables with a row per run, summaries with a line per recipe, published and measured curves.

Runs of the same recipe that differ in nothing but the seed (and in what does not change the result) carry the same
`recipe_id`: together they are one experiment.
"""

from cifar_fast.reporting.results.curves import draw_published, published_curve, redraw
from cifar_fast.reporting.results.markdown import (
    END,
    START,
    block,
    epochs_markdown,
    markdown,
    replace_block,
    reproductions_markdown,
    size_markdown,
)
from cifar_fast.reporting.results.rows import changes, recipe_id, row
from cifar_fast.reporting.results.store import (
    COLUMNS,
    OWN,
    PUBLISHED,
    ResultsError,
    add_missing_rows,
    add_row,
    leave_replaced,
    leave_row,
    read,
    read_all,
)
from cifar_fast.reporting.results.summary import by_budget, by_epochs, by_pruning, facts, summarize
from cifar_fast.reporting.results.terminal import terminal

__all__ = [
    "row", "recipe_id", "changes",  # of a run's card and recipe
    "COLUMNS", "PUBLISHED", "OWN", "ResultsError", "read", "read_all",  # the tables
    "leave_row", "leave_replaced", "add_row", "add_missing_rows",
    "summarize", "by_epochs", "by_budget", "by_pruning",  # one line a recipe, or a setting
    "facts",  # what is known of the recipes without a run
    "terminal", "markdown", "epochs_markdown", "size_markdown", "reproductions_markdown",  # tables for people
    "block", "replace_block", "START", "END",
    "published_curve", "draw_published", "redraw",  # figures against the published records
]
