"""The recipes by name: files in `recipes/`, or any .py file."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import reprlib
import sys
import traceback
import warnings
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from cifar_fast.recipe.spec import Recipe, RecipeError
from cifar_fast.utils.files import expand_path
from cifar_fast.utils.text import nearest

MODULE_PREFIX = "cifar_fast_recipe_"
"A recipe file is imported as the module of this name and the file's own."


def recipes_dir() -> Path:
    "The folder of the recipes: in a wheel inside the package, in a checkout at the top of the tree."
    package = Path(__file__).parent.parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def list_recipes() -> dict[str, str]:
    "Recipe name → first line of its docstring, read without importing anything."
    files = sorted(p for p in recipes_dir().glob("*.py") if not p.name.startswith("_"))
    return {p.stem: (ast.get_docstring(ast.parse(p.read_text("utf-8"))) or "").split("\n")[0] for p in files}


def recipe_path(name: str) -> Path:
    "The file of a recipe: a name from `list_recipes`, or a path ending in .py. Raises RecipeError."
    path = expand_path(name)
    if path.suffix != ".py":
        path = recipes_dir() / f"{name}.py"
        if "=" in name:
            raise RecipeError(f"{name} is a setting; the recipe comes first, as in: recipe final {name}")
        if name not in (names := list_recipes()):
            raise RecipeError(f"no recipe is called {name!r}{nearest(name, names)}; there are "
                              f"{', '.join(names)}, or give a file: python -m cifar_fast copy final mine.py")
    elif not path.is_file():
        raise RecipeError(f"no recipe file {name}; python -m cifar_fast copy final {name} creates one to start from")
    return path


def run_recipe_file(path: Path) -> ModuleType:
    "Run a recipe file, and with it its registrations with timm; returns its module. Raises RecipeError."
    spec = importlib.util.spec_from_file_location(f"{MODULE_PREFIX}{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    again = spec.name in sys.modules
    sys.modules[spec.name] = module  # timm looks a registered model's module up there
    try:
        with warnings.catch_warnings():
            if again:  # timm warns of a model that is registered twice
                warnings.filterwarnings("ignore", "Overwriting .* in registry")
            module.recipe_source = path.read_bytes()  # the file may be edited while its recipe trains
            exec(spec.loader.source_to_code(module.recipe_source, str(path)), vars(module))
    except Exception as e:
        place = f"{path}, line {line}" if (line := line_in(path, e)) else str(path)
        raise RecipeError(f"{place}: {type(e).__name__}: {getattr(e, 'msg', None) or e}; correct the recipe") from e
    return module


def line_in(path: Path, e: Exception) -> int | None:
    "The last line of the file that an error came through; None where it was not one of its lines."
    if isinstance(e, SyntaxError):
        return e.lineno if e.filename == str(path) else None
    lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None


def load_recipe(name: str) -> Recipe:
    "The `recipe` value of a recipe file, named after the file. Raises RecipeError naming the file."
    path = recipe_path(name)
    missing = object()
    recipe = getattr(run_recipe_file(path), "recipe", missing)
    if not isinstance(recipe, Recipe):
        found = "it defines no `recipe`" if recipe is missing else f"its `recipe` is {reprlib.repr(recipe)}"
        raise RecipeError(f"{path} must define `recipe = Recipe(...)`, and {found}; python -m cifar_fast copy final "
                          f"mine.py makes one to start from")
    return replace(recipe, name=recipe.name or path.stem)
