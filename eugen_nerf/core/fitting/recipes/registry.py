"""All conversion recipes by name: a new one is a file beside this one, a line here, its name in `core/choices.py`."""

from __future__ import annotations

from collections.abc import Mapping

from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.fitting.recipes.low_rank import LowRank
from eugen_nerf.core.fitting.recipes.pruned_neurons import PrunedNeurons
from eugen_nerf.core.fitting.recipes.random_projections import RandomProjections
from eugen_nerf.core.fitting.recipes.recipe import Recipe
from eugen_nerf.core.fitting.recipes.teacher_rows import TeacherRows

_EVERY: tuple[Recipe, ...] = (
    TeacherRows("rows", resolved=True, greedy=True),
    RandomProjections("random", whitened=False),
    RandomProjections("whitened", whitened=True),
    PrunedNeurons("pruned"),
    TeacherRows("compensated", resolved=False, greedy=False),
    LowRank("svd", aware=False),
    LowRank("aware", aware=True),
)
RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in _EVERY}


def recipe_named(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ConfigError: there is none of it.
    """
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}; choose {', '.join(RECIPES)}")
    return RECIPES[name]
