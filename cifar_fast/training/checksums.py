"""The checksums of the weights that a recipe names: they are among the settings that two runs are compared by."""

from __future__ import annotations

from dataclasses import replace

from cifar_fast.recipe import Recipe
from cifar_fast.training.distill import checksums_of, read_teachers
from cifar_fast.training.init import read_init


def with_checksums(recipe: Recipe) -> Recipe:
    """The recipe with the sha256 of the weights that it starts from, and of its teachers'.

    Raises InitError or TeacherError where they cannot be read or are others than those of a given checksum.
    """
    init = read_init(recipe).sha256 if recipe.init else recipe.init_sha256
    teachers = checksums_of(read_teachers(recipe)) if recipe.distill else recipe.distill_sha256
    return replace(recipe, init_sha256=init, distill_sha256=teachers)
