"""A recipe: what it holds, how it is found, changed, checked and described."""

from cifar_fast.recipe.checks import check, require_text, require_validation
from cifar_fast.recipe.describe import describe, flatten
from cifar_fast.recipe.overrides import check_typed, choices, on_other_data, override, settings
from cifar_fast.recipe.registry import list_recipes, load_recipe, recipe_path, recipes_dir
from cifar_fast.recipe.sizes import at_size
from cifar_fast.recipe.spec import MAPPINGS, PUBLISHED_STATS, UNTYPED, Recipe, RecipeError, settings_that

__all__ = [
    "Recipe", "RecipeError", "MAPPINGS", "PUBLISHED_STATS", "UNTYPED", "settings_that",
    "recipes_dir", "list_recipes", "recipe_path", "load_recipe",
    "override", "on_other_data", "at_size", "choices", "settings",
    "check", "check_typed", "require_text", "require_validation",
    "describe", "flatten",
]
