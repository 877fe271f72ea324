"""The registry of recipes: its names are those of the command line, and each recipe is what it says of itself."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from eugen_nerf.core.choices import RecipeName
from eugen_nerf.core.errors import ConfigError
from eugen_nerf.core.eugen import EUGenConfig, EUGenLinear
from eugen_nerf.core.fitting.importance import LayerMoments
from eugen_nerf.core.fitting.layer_batches import LayerBatch, Replay
from eugen_nerf.core.fitting.recipes.recipe import ConversionConfig
from eugen_nerf.core.fitting.recipes.registry import RECIPES, recipe_named
from eugen_nerf.core.layers.baselines import DenseLinear, LowRankLinear
from eugen_nerf.core.least_squares import MomentSums
from eugen_nerf.core.modules.convert_modules import convert_

KINDS = {"eugen": EUGenLinear, "lowrank": LowRankLinear}


def test_names_are_those_of_the_command_line() -> None:
    assert set(RECIPES) == set(get_args(RecipeName))
    assert all(recipe.name == name for name, recipe in RECIPES.items())
    with pytest.raises(ConfigError, match=r"^there is no recipe 'best'; choose rows, random, whitened"):
        recipe_named("best")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_what_it_says_of_itself(name: str) -> None:
    torch.manual_seed(0)
    recipe, old = RECIPES[name], DenseLinear(6, 8, "relu").requires_grad_(False)
    x = torch.randn(300, 6)
    replay = Replay(lambda: (LayerBatch(p, old(p), None, i == 4) for i, p in enumerate(x.split(60))))
    eugen = EUGenConfig(norm=False, phi="softplus")
    layer = recipe.new_layer(old, 4, eugen, seed=0)
    assert isinstance(layer, KINDS[recipe.layer_kind])
    error, ridge = recipe.fit(layer, old, replay, torch.eye(8).double(), ConversionConfig(sweeps=0))
    held_out, y = layer(x[240:]), old(x[240:])
    expected = (held_out - y).square().sum() / (y - y.mean(dim=0)).square().sum()
    assert error == pytest.approx(expected.item(), rel=1e-3)
    assert ridge >= 0
    if recipe.chooses_neurons:
        assert isinstance(layer, EUGenLinear)
        assert (layer.projection[:, None] == old.weight).all(dim=2).any(dim=1).all()
        assert layer.config.phi == "relu"
        with pytest.raises(ConfigError, match=r"^cannot choose 9 features of 8 rows: choose 1 to 8"):
            recipe.new_layer(old, 9, eugen, seed=0)
    elif isinstance(layer, EUGenLinear):
        assert layer.config.phi == "softplus"


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_that_choose_neurons_know_what_fewer_cost(name: str) -> None:
    recipe, values = RECIPES[name], torch.randn(50, 5, dtype=torch.float64)
    sums = MomentSums(5, 5)
    sums.add(values, values)
    moments = LayerMoments(sums, torch.eye(5, dtype=torch.float64))
    if recipe.allocates == "neurons":
        curve = recipe.error_curve(moments)
        assert curve.shape == (6,)
        assert (curve.diff() <= 1e-12).all()
        assert curve[5] == 0
        return
    with pytest.raises(ConfigError, match=r"^units are allocated by how well some stand for all"):
        recipe.check_previewed()


@pytest.mark.parametrize("name", RECIPES)
def test_linear_layers_stay_linear_layers_where_a_recipe_says_so(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    batches, config = [torch.randn(30, 4) for _ in range(5)], ConversionConfig(name, EUGenConfig(norm=False))  # type: ignore[arg-type]
    if RECIPES[name].keeps_plain_linears:
        convert_(model, batches, config, num_features=3)
        assert [layer.weight.shape for layer in model if isinstance(layer, nn.Linear)] == [(3, 4), (2, 3)]
        return
    with pytest.raises(ConfigError, match=f"^recipe '{name}' puts a layer more into the model; choose rows, random, "):
        convert_(model, batches, config, num_features=3)
